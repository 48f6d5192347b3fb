-- A repository and what its runs use where they do not say. The version is that of the stream `project-<id>`.
CREATE TABLE projects (
    id                  text        PRIMARY KEY,
    tenant_id           text        NOT NULL,
    version             bigint      NOT NULL,
    name                text        NOT NULL,
    repository          text        NOT NULL,
    default_ref         text        NOT NULL,
    agent               text,
    model               text,
    limits              jsonb       NOT NULL,
    image               text        NOT NULL,
    max_concurrent_runs integer,
    max_runs_per_day    integer,
    created_by          text        NOT NULL,
    fingerprint         text        NOT NULL,
    created_at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    archived_at         timestamptz
);
CREATE UNIQUE INDEX projects_name ON projects (tenant_id, name) WHERE archived_at IS NULL;
CREATE INDEX projects_of_tenant ON projects (tenant_id, created_at DESC, id DESC);

-- One for each project, sealed for the repository that it opens. The edge writes tokens and cannot read them.
CREATE TABLE git_credentials (
    project_id   text        PRIMARY KEY REFERENCES projects (id),
    tenant_id    text        NOT NULL,
    repository   text        NOT NULL,
    username     text        NOT NULL,
    token_sealed bytea       NOT NULL,
    set_at       timestamptz NOT NULL DEFAULT clock_timestamp()
);

ALTER TABLE projects ENABLE ROW LEVEL SECURITY;
ALTER TABLE git_credentials ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON projects TO codeagent_edge;
GRANT INSERT (id, tenant_id, version, name, repository, default_ref, agent, model, limits, image, max_concurrent_runs,
              max_runs_per_day, created_by, fingerprint) ON projects TO codeagent_edge;
GRANT UPDATE (version, name, repository, default_ref, agent, model, limits, image, max_concurrent_runs,
              max_runs_per_day, updated_at, archived_at) ON projects TO codeagent_edge;
GRANT SELECT (project_id, tenant_id, repository, username, set_at) ON git_credentials TO codeagent_edge;
GRANT INSERT (project_id, tenant_id, repository, username, token_sealed) ON git_credentials TO codeagent_edge;
GRANT DELETE ON git_credentials TO codeagent_edge;
CREATE POLICY of_tenant ON projects TO codeagent_edge
    USING (tenant_id = (SELECT current_tenant())) WITH CHECK (tenant_id = (SELECT current_tenant()));
CREATE POLICY of_tenant ON git_credentials TO codeagent_edge
    USING (tenant_id = (SELECT current_tenant())) WITH CHECK (tenant_id = (SELECT current_tenant()));

-- What lists of runs are asked for.
CREATE INDEX runs_by_status ON runs (tenant_id, status, created_at DESC, run_id DESC);
CREATE INDEX runs_by_agent ON runs (tenant_id, agent, created_at DESC, run_id DESC);
CREATE INDEX runs_by_update ON runs (tenant_id, updated_at);
ALTER TABLE runs ADD COLUMN project_id text;
CREATE INDEX runs_of_project ON runs (project_id, created_at DESC, run_id DESC) WHERE project_id IS NOT NULL;
