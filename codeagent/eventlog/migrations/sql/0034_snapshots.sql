-- Folds of runs, a cache of the edge's: whatever is in it is held against the log before it is believed.
CREATE TABLE snapshots (
    run_id    text        PRIMARY KEY,
    tenant_id text        NOT NULL,
    version   bigint      NOT NULL CHECK (version > 0),
    folded_by text        NOT NULL,
    value     bytea       NOT NULL CHECK (octet_length(value) <= 524288),
    folded_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX snapshots_age ON snapshots (folded_at);
ALTER TABLE snapshots ENABLE ROW LEVEL SECURITY;
CREATE POLICY of_tenant ON snapshots TO codeagent_edge
    USING (tenant_id = (SELECT current_tenant())) WITH CHECK (tenant_id = (SELECT current_tenant()));
CREATE POLICY of_services ON snapshots TO codeagent_service USING (true);
GRANT SELECT, INSERT (run_id, tenant_id, version, folded_by, value),
    UPDATE (version, folded_by, value, folded_at) ON snapshots TO codeagent_edge;
GRANT SELECT, DELETE ON snapshots TO codeagent_service;
