-- The canary that an agent has, and how the newest one ended that was rolled back.
ALTER TABLE agents ADD COLUMN canary jsonb, ADD COLUMN rolled_back jsonb;
CREATE INDEX agents_with_canary ON agents (id) WHERE canary IS NOT NULL;
GRANT UPDATE (canary) ON agents TO codeagent_edge;

ALTER TABLE agent_versions DROP CONSTRAINT agent_versions_state_check;
ALTER TABLE agent_versions ADD CONSTRAINT agent_versions_state_check
    CHECK (state IN ('draft', 'canary', 'active', 'deprecated', 'retired'));
