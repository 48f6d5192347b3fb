-- Conversations: runs that follow each other on the same files. The version is that of the stream `session-<id>`.
CREATE TABLE sessions (
    id          text        PRIMARY KEY,
    tenant_id   text        NOT NULL,
    version     bigint      NOT NULL,
    project_id  text        REFERENCES projects (id),
    title       text        NOT NULL,
    created_by  text        NOT NULL,
    fingerprint text        NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    closed_at   timestamptz
);
CREATE INDEX sessions_of_tenant ON sessions (tenant_id, created_at DESC, id DESC);
CREATE INDEX sessions_of_project ON sessions (project_id, created_at DESC, id DESC) WHERE project_id IS NOT NULL;

ALTER TABLE sessions ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON sessions TO codeagent_edge;
GRANT INSERT (id, tenant_id, version, project_id, title, created_by, fingerprint) ON sessions TO codeagent_edge;
GRANT UPDATE (version, title, updated_at, closed_at) ON sessions TO codeagent_edge;
CREATE POLICY of_tenant ON sessions TO codeagent_edge
    USING (tenant_id = (SELECT current_tenant())) WITH CHECK (tenant_id = (SELECT current_tenant()));

ALTER TABLE runs ADD COLUMN session_id text;
CREATE INDEX runs_of_session ON runs (session_id, created_at DESC, run_id DESC) WHERE session_id IS NOT NULL;
