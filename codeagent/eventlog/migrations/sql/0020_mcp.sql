-- The tools of servers outside that an agent's runs may call, as they were described. Versions from before have none.
-- As text and not as jsonb: what models are told stays as the digest has seen it.
ALTER TABLE agent_versions ADD COLUMN mcp json NOT NULL DEFAULT '[]';
GRANT INSERT (mcp) ON agent_versions TO codeagent_edge;
