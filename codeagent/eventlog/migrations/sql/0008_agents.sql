-- Agents by name, and their versions. What a version says is written once: the edge may change its state alone.
CREATE TABLE agents (
    id             text        PRIMARY KEY,
    tenant_id      text        NOT NULL,
    version        bigint      NOT NULL,
    name           text        COLLATE "C" NOT NULL,
    description    text        NOT NULL,
    active_version integer,
    former_version integer,
    latest_version integer     NOT NULL DEFAULT 0,
    fingerprint    text        NOT NULL,
    created_by     text        NOT NULL,
    created_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    archived_at    timestamptz,
    -- A name means one agent for ever, an archived one too, so that `name@3` in an old run does.
    UNIQUE (tenant_id, name)
);
CREATE TABLE agent_versions (
    agent_id     text        NOT NULL REFERENCES agents,
    number       integer     NOT NULL,
    tenant_id    text        NOT NULL,
    order_id     text        NOT NULL UNIQUE,
    state        text        NOT NULL CHECK (state IN ('draft', 'active', 'deprecated', 'retired')),
    instructions text        NOT NULL,
    model        text,
    tools        text[]      NOT NULL,
    limits       jsonb       NOT NULL,
    approvals    jsonb,
    digest       text        NOT NULL,
    created_by   text        NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (agent_id, number)
);
CREATE UNIQUE INDEX agent_versions_one_active ON agent_versions (agent_id) WHERE state = 'active';

ALTER TABLE agents ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON agents TO codeagent_edge;
GRANT INSERT (id, tenant_id, version, name, description, fingerprint, created_by) ON agents TO codeagent_edge;
GRANT UPDATE (version, description, active_version, former_version, latest_version, updated_at, archived_at)
    ON agents TO codeagent_edge;
CREATE POLICY of_tenant ON agents TO codeagent_edge
    USING (tenant_id = (SELECT current_tenant())) WITH CHECK (tenant_id = (SELECT current_tenant()));

ALTER TABLE agent_versions ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON agent_versions TO codeagent_edge;
GRANT INSERT (agent_id, number, tenant_id, order_id, state, instructions, model, tools, limits, approvals, digest,
              created_by)
    ON agent_versions TO codeagent_edge;
GRANT UPDATE (state) ON agent_versions TO codeagent_edge;
CREATE POLICY of_tenant ON agent_versions TO codeagent_edge
    USING (tenant_id = (SELECT current_tenant())) WITH CHECK (tenant_id = (SELECT current_tenant()));
