-- API keys by their digests. The edge may look a digest up, and read everything but the digests of its tenant's keys.
CREATE TABLE api_keys (
    id           text        PRIMARY KEY,
    tenant_id    text        NOT NULL,
    principal_id text        NOT NULL,
    created_by   text        NOT NULL,
    version      bigint      NOT NULL,
    digest       bytea       NOT NULL UNIQUE CHECK (octet_length(digest) = 32),
    hint         text        NOT NULL,
    name         text        NOT NULL,
    scopes       text[]      NOT NULL,
    networks     cidr[]      NOT NULL,
    fingerprint  text        NOT NULL,
    replaces     text,
    replaced_by  text,
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at   timestamptz NOT NULL,
    revoked_at   timestamptz,
    last_used_at timestamptz
);
CREATE INDEX api_keys_of_tenant ON api_keys (tenant_id, created_at DESC, id DESC);

ALTER TABLE api_keys ENABLE ROW LEVEL SECURITY;
GRANT SELECT (id, tenant_id, principal_id, created_by, version, hint, name, scopes, networks, fingerprint, replaces,
              replaced_by, created_at, expires_at, revoked_at, last_used_at) ON api_keys TO codeagent_edge;
GRANT INSERT (id, tenant_id, principal_id, created_by, version, digest, hint, name, scopes, networks, fingerprint,
              replaces, expires_at) ON api_keys TO codeagent_edge;
GRANT UPDATE (version, expires_at, revoked_at, replaced_by) ON api_keys TO codeagent_edge;
CREATE POLICY of_tenant ON api_keys TO codeagent_edge
    USING (tenant_id = (SELECT current_tenant())) WITH CHECK (tenant_id = (SELECT current_tenant()));

-- Whose keys these are, before it is known which tenant asks, and what their principals may do now: a user's role, a
-- service account's scope, neither for a principal that only operators know. What holds no more is not found.
CREATE FUNCTION find_api_keys_v1(p_digests bytea[])
RETURNS TABLE (digest bytea, id text, tenant_id text, principal_id text, scopes text[], networks cidr[],
               expires_at timestamptz, role text, account_scope text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public AS $$
    SELECT k.digest, k.id, k.tenant_id, k.principal_id, k.scopes, k.networks, k.expires_at, u.role, a.scope
    FROM api_keys k
    LEFT JOIN tenants t ON t.id = k.tenant_id
    LEFT JOIN users u ON u.id = k.principal_id AND u.tenant_id = k.tenant_id
    LEFT JOIN service_accounts a ON a.id = k.principal_id AND a.tenant_id = k.tenant_id
    WHERE k.digest = ANY (p_digests) AND k.revoked_at IS NULL AND k.expires_at > clock_timestamp()
          AND t.suspended_at IS NULL AND u.disabled_at IS NULL AND a.disabled_at IS NULL
$$;

-- When keys were last used, once a minute at most. Nobody waits for the disk.
CREATE FUNCTION touch_api_keys_v1(p_ids text[], p_at timestamptz[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    -- In one order: two edges never wait for each other.
    PERFORM 1 FROM api_keys WHERE id = ANY (p_ids) ORDER BY id FOR UPDATE;
    UPDATE api_keys k SET last_used_at = u.at FROM unnest(p_ids, p_at) AS u (id, at)
    WHERE k.id = u.id AND (k.last_used_at IS NULL OR k.last_used_at < u.at - interval '1 minute');
END $$;

REVOKE ALL ON FUNCTION find_api_keys_v1(bytea[]), touch_api_keys_v1(text[], timestamptz[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION find_api_keys_v1(bytea[]), touch_api_keys_v1(text[], timestamptz[]) TO codeagent_edge;
