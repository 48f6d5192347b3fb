ALTER TABLE projects ADD COLUMN dependencies jsonb;
GRANT INSERT (dependencies), UPDATE (dependencies) ON projects TO codeagent_edge;

-- The archive of what a tenant has installed, by the digest of all that decides what that is: a projection of the log.
CREATE TABLE dependency_caches (
    tenant_id      text        NOT NULL,
    key_digest     bytea       NOT NULL,
    archive_digest bytea       NOT NULL,
    used_at        timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, key_digest)
);
CREATE INDEX dependency_caches_by_archive ON dependency_caches (tenant_id, archive_digest);
CREATE INDEX dependency_caches_by_use ON dependency_caches (used_at);
ALTER TABLE dependency_caches ENABLE ROW LEVEL SECURITY;
