-- What commands of an agent's runs may reach, as name:port. Versions from before reach nothing.
ALTER TABLE agent_versions ADD COLUMN egress text[] NOT NULL DEFAULT '{}';
GRANT INSERT (egress) ON agent_versions TO codeagent_edge;
