-- Credentials for one stream, which live a minute. A crash of the database may forget them: their owners ask for others.
CREATE UNLOGGED TABLE stream_tickets (
    digest     bytea       PRIMARY KEY CHECK (octet_length(digest) = 32),
    tenant_id  text        NOT NULL,
    principal  jsonb       NOT NULL,
    run_id     text,
    expires_at timestamptz NOT NULL
);
CREATE INDEX stream_tickets_expiry ON stream_tickets (expires_at);

-- The edge reaches it through the two functions alone.
ALTER TABLE stream_tickets ENABLE ROW LEVEL SECURITY;

-- Whoever adds a ticket removes some that were never used, so that no more are kept than were asked for lately.
CREATE FUNCTION issue_stream_ticket_v1(p_digest bytea, p_principal jsonb, p_run text, p_seconds double precision)
RETURNS timestamptz
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
DECLARE
    v_expires timestamptz := clock_timestamp() + make_interval(secs => p_seconds);
BEGIN
    IF coalesce(current_tenant(), '') = '' OR p_principal ->> 'tenant_id' IS DISTINCT FROM current_tenant() THEN
        RAISE insufficient_privilege USING MESSAGE = 'no principal of this tenant';
    END IF;
    DELETE FROM stream_tickets WHERE digest IN (
        SELECT digest FROM stream_tickets WHERE expires_at < clock_timestamp()
        ORDER BY expires_at LIMIT 20 FOR UPDATE SKIP LOCKED);
    INSERT INTO stream_tickets (digest, tenant_id, principal, run_id, expires_at)
    VALUES (p_digest, current_tenant(), p_principal, p_run, v_expires);
    RETURN v_expires;
END $$;

-- A ticket is looked up before its tenant is known. Of two who show it at once, one gets the row.
CREATE FUNCTION redeem_stream_ticket_v1(p_digest bytea) RETURNS TABLE (principal jsonb, run_id text)
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
    WITH used AS (DELETE FROM stream_tickets t WHERE t.digest = p_digest RETURNING t.principal, t.run_id, t.expires_at)
    SELECT u.principal, u.run_id FROM used u WHERE u.expires_at > clock_timestamp()
$$;

REVOKE ALL ON FUNCTION issue_stream_ticket_v1(bytea, jsonb, text, double precision), redeem_stream_ticket_v1(bytea)
    FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    issue_stream_ticket_v1(bytea, jsonb, text, double precision), redeem_stream_ticket_v1(bytea) TO codeagent_edge;
