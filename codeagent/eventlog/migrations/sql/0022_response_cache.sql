-- Whether replies of models may be given again to the runs of a version, and for how long. Versions from before ask.
ALTER TABLE agent_versions ADD COLUMN cache jsonb;
GRANT INSERT (cache) ON agent_versions TO codeagent_edge;

-- What models have replied, by the digest of all that decides what they were asked: no truth, only a saving. A row is
-- written and read by provider workers; the edge can remove it, for whoever asks to be forgotten, and cannot read it.
CREATE TABLE response_cache (
    tenant_id    text        NOT NULL,
    key          text        NOT NULL,
    principal_id text        NOT NULL,
    size_bytes   integer     NOT NULL,
    stored_at    timestamptz NOT NULL,
    expires_at   timestamptz NOT NULL,
    reply_sealed bytea       NOT NULL,
    PRIMARY KEY (tenant_id, key)
);
ALTER TABLE response_cache ALTER COLUMN reply_sealed SET STORAGE EXTERNAL;
CREATE INDEX response_cache_newest ON response_cache (tenant_id, stored_at DESC, key) INCLUDE (size_bytes);
CREATE INDEX response_cache_of_principal ON response_cache (tenant_id, principal_id);
CREATE INDEX response_cache_by_expiry ON response_cache (expires_at);
ALTER TABLE response_cache ENABLE ROW LEVEL SECURITY;
GRANT SELECT (tenant_id, principal_id), DELETE ON response_cache TO codeagent_edge;
CREATE POLICY of_tenant ON response_cache TO codeagent_edge USING (tenant_id = (SELECT current_tenant()));

-- Calls that were answered from it.
ALTER TABLE usage_by_run ADD COLUMN cached_calls bigint NOT NULL DEFAULT 0;
ALTER TABLE usage_by_day ADD COLUMN cached_calls bigint NOT NULL DEFAULT 0;
ALTER TABLE agent_runs ADD COLUMN cached_calls bigint NOT NULL DEFAULT 0;
