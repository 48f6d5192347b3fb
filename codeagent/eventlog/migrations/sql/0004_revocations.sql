-- Credentials that end before their time. Each edge keeps what is in force in memory and looks here twice a second.
CREATE TABLE revocations (
    position       bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    transaction_id xid8        NOT NULL DEFAULT pg_current_xact_id(),
    tenant_id      text        NOT NULL,
    kind           text        NOT NULL CHECK (kind IN ('api_key', 'session', 'jti', 'tenant')),
    id             text        NOT NULL,
    at             timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at     timestamptz NOT NULL
);
CREATE INDEX revocations_cursor ON revocations (transaction_id);
CREATE INDEX revocations_expiry ON revocations (expires_at);

ALTER TABLE revocations ENABLE ROW LEVEL SECURITY;
GRANT INSERT (tenant_id, kind, id, at, expires_at) ON revocations TO codeagent_edge;
CREATE POLICY of_tenant ON revocations FOR INSERT TO codeagent_edge
    WITH CHECK (tenant_id = (SELECT current_tenant()));

-- What is new since a look whose oldest open transaction was p_since, and where the next look begins: a transaction
-- that is still open is read by that one, so that none is skipped and none is waited for. Times are told as seconds
-- from now, since clocks of edges differ. There is a row also when nothing is new.
CREATE FUNCTION read_revocations_v1(p_since text)
RETURNS TABLE (horizon text, tenant_id text, kind text, id text, begins_in double precision, ends_in double precision)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public AS $$
    SELECT s.horizon::text, r.tenant_id, r.kind, r.id,
           extract(epoch FROM r.at - clock_timestamp())::double precision,
           extract(epoch FROM r.expires_at - clock_timestamp())::double precision
    FROM (SELECT pg_snapshot_xmin(pg_current_snapshot()) AS horizon) s
    LEFT JOIN revocations r ON r.transaction_id >= p_since::xid8 AND r.expires_at > clock_timestamp()
$$;

REVOKE ALL ON FUNCTION read_revocations_v1(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION read_revocations_v1(text) TO codeagent_edge;
