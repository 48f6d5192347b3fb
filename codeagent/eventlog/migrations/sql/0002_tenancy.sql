-- The edge works under a role of its own, which sees a tenant's rows only while it works for that tenant. Workers cross
-- tenants and own the tables: nothing of this costs them a query.
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'codeagent_edge') THEN
        CREATE ROLE codeagent_edge NOLOGIN;
    END IF;
EXCEPTION
    WHEN duplicate_object OR unique_violation THEN
        NULL; -- another database of this server is being migrated at the same moment
    WHEN insufficient_privilege THEN
        RAISE EXCEPTION 'role codeagent_edge is missing: let an administrator run CREATE ROLE codeagent_edge NOLOGIN';
END $$;
DO $$ BEGIN
    IF NOT pg_has_role(current_user, 'codeagent_edge', 'MEMBER') THEN
        GRANT codeagent_edge TO CURRENT_USER;
    END IF;
END $$;
GRANT USAGE ON SCHEMA public TO codeagent_edge;
GRANT SELECT ON alembic_version TO codeagent_edge;

-- The tenant a session works for; empty for none, which matches no row.
CREATE FUNCTION current_tenant() RETURNS text
LANGUAGE sql STABLE AS $$ SELECT current_setting('codeagent.tenant_id', true) $$;

ALTER TABLE events ENABLE ROW LEVEL SECURITY;
ALTER TABLE effects ENABLE ROW LEVEL SECURITY;
ALTER TABLE outbox ENABLE ROW LEVEL SECURITY;
ALTER TABLE submissions ENABLE ROW LEVEL SECURITY;
ALTER TABLE runs ENABLE ROW LEVEL SECURITY;
ALTER TABLE projections ENABLE ROW LEVEL SECURITY;

GRANT SELECT ON events, submissions, runs TO codeagent_edge;
GRANT INSERT ON outbox TO codeagent_edge;
GRANT SELECT (id) ON outbox TO codeagent_edge;
CREATE POLICY of_tenant ON events FOR SELECT TO codeagent_edge USING (tenant_id = (SELECT current_tenant()));
CREATE POLICY of_tenant ON submissions FOR SELECT TO codeagent_edge USING (tenant_id = (SELECT current_tenant()));
CREATE POLICY of_tenant ON runs FOR SELECT TO codeagent_edge USING (tenant_id = (SELECT current_tenant()));
CREATE POLICY of_tenant ON outbox TO codeagent_edge
    USING (tenant_id = (SELECT current_tenant())) WITH CHECK (tenant_id = (SELECT current_tenant()));

-- What a tenant's feed reads.
CREATE INDEX events_of_tenant ON events (tenant_id, transaction_id, global_position);

-- Reads of several tenants that share a statement name the tenant of each: another tenant's stream is empty.
CREATE FUNCTION read_streams_v1(p_tenants text[], p_streams text[], p_after bigint[], p_most bigint[])
RETURNS TABLE (place bigint, global_position bigint, transaction_id text, stream_id text, stream_version bigint,
               event_id uuid, event_type text, schema_version integer, tenant_id text, key_id text, data bytea,
               data_digest bytea, metadata jsonb, occurred_at timestamptz, leaf_hash bytea)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public AS $$
    SELECT w.place, e.global_position, e.transaction_id::text, e.stream_id, e.stream_version, e.event_id, e.event_type,
           e.schema_version, e.tenant_id, e.key_id, e.data, e.data_digest, e.metadata, e.occurred_at, e.leaf_hash
    FROM unnest(p_tenants, p_streams, p_after, p_most) WITH ORDINALITY AS w (tenant, stream, after, most, place)
    CROSS JOIN LATERAL (
        SELECT * FROM events x
        WHERE x.stream_id = w.stream AND x.stream_version > w.after AND x.tenant_id = w.tenant
        ORDER BY x.stream_version LIMIT w.most) e
    ORDER BY w.place, e.stream_version
$$;

-- How far streams are, by their names alone.
CREATE FUNCTION stream_heads_v1(p_streams text[]) RETURNS TABLE (id text, version bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public AS $$
    SELECT s.id, coalesce((SELECT max(stream_version) FROM events WHERE stream_id = s.id), 0)
    FROM unnest(p_streams) AS s (id)
$$;

-- The broker has these runs' commands. Nobody waits for the disk: a lost mark only lets a repeat be sent again.
CREATE FUNCTION confirm_runs_v1(p_runs text[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    UPDATE submissions SET accepted = true WHERE run_id = ANY (p_runs) AND NOT accepted;
END $$;

ALTER FUNCTION accept_runs_v1(text[], text[], text[], jsonb[], uuid[], text[], jsonb[], bytea[])
    SECURITY DEFINER SET search_path = pg_catalog, public;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA public FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    current_tenant(), read_streams_v1(text[], text[], bigint[], bigint[]), stream_heads_v1(text[]),
    confirm_runs_v1(text[]), accept_runs_v1(text[], text[], text[], jsonb[], uuid[], text[], jsonb[], bytea[])
    TO codeagent_edge;
