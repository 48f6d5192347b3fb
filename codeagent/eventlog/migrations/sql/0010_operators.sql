-- What operators of the installation do over HTTP. The edge calls these for routes that ask for the scope `operator`,
-- which no credential of a tenant has. They tell of tenants that there are, and of rows how many.
CREATE FUNCTION list_tenants_v1(p_after text, p_most integer)
RETURNS TABLE (id text, name text, created_at timestamptz, suspended_at timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public AS $$
    SELECT t.id, t.name, t.created_at, t.suspended_at FROM tenants t WHERE t.id > p_after ORDER BY t.id LIMIT p_most
$$;

-- Where read models are in the log, and how long the oldest event that they have not read has been there.
CREATE FUNCTION projections_v1()
RETURNS TABLE (name text, transaction_id text, global_position bigint, behind_seconds double precision)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public AS $$
    SELECT p.name, p.transaction_id::text, p.global_position,
           coalesce(extract(epoch FROM clock_timestamp() - n.recorded_at), 0)::double precision
    FROM projections p
    LEFT JOIN LATERAL (
        SELECT e.recorded_at FROM events e
        WHERE (e.transaction_id, e.global_position) > (p.transaction_id, p.global_position)
        ORDER BY e.transaction_id, e.global_position LIMIT 1) n ON true
    ORDER BY p.name
$$;

CREATE FUNCTION backlog_v1()
RETURNS TABLE (ledger text, kind text, waiting bigint, overdue bigint, oldest_seconds double precision)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public AS $$
    SELECT 'effects', e.kind, count(*), count(*) FILTER (WHERE e.due_at < clock_timestamp()),
           extract(epoch FROM clock_timestamp() - min(e.created_at))::double precision
    FROM effects e WHERE NOT e.recorded GROUP BY e.kind
    UNION ALL
    SELECT 'outbox', o.topic, count(*), count(*) FILTER (WHERE o.due_at < clock_timestamp()),
           extract(epoch FROM clock_timestamp() - min(o.created_at))::double precision
    FROM outbox o GROUP BY o.topic
    ORDER BY 1, 2
$$;

-- Takes back what shut out the tenant that the session works for; revocations are otherwise not the edge's to remove.
CREATE FUNCTION lift_tenant_v1() RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
    DELETE FROM revocations WHERE tenant_id = current_tenant() AND kind = 'tenant'
$$;

REVOKE ALL ON FUNCTION list_tenants_v1(text, integer), projections_v1(), backlog_v1(), lift_tenant_v1() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION list_tenants_v1(text, integer), projections_v1(), backlog_v1(), lift_tenant_v1()
    TO codeagent_edge;

-- Suspending a tenant is a change of that tenant's own row, made while working for it.
GRANT UPDATE (version, suspended_at) ON tenants TO codeagent_edge;
CREATE POLICY suspended ON tenants FOR UPDATE TO codeagent_edge
    USING (id = (SELECT current_tenant())) WITH CHECK (id = (SELECT current_tenant()));
