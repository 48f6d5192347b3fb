-- What tenants may use of sandboxes, as operators have set it. `version` is that of `sandbox_quota-<tenant>`.
CREATE TABLE sandbox_quotas (
    tenant_id            text        PRIMARY KEY,
    version              bigint      NOT NULL,
    concurrent_sandboxes integer     CHECK (concurrent_sandboxes > 0),
    cpu_seconds_per_day  bigint      CHECK (cpu_seconds_per_day > 0),
    gib_hours_per_day    numeric     CHECK (gib_hours_per_day > 0),
    updated_at           timestamptz NOT NULL DEFAULT clock_timestamp()
);
ALTER TABLE sandbox_quotas ENABLE ROW LEVEL SECURITY;
GRANT SELECT, INSERT, UPDATE ON sandbox_quotas TO codeagent_edge;
CREATE POLICY of_tenant ON sandbox_quotas TO codeagent_edge
    USING (tenant_id = (SELECT current_tenant())) WITH CHECK (tenant_id = (SELECT current_tenant()));

-- What commands may use that usage does not count yet. Whoever counts one removes its row in the same transaction.
CREATE TABLE sandbox_reservations (
    effect_id     uuid        PRIMARY KEY,
    tenant_id     text        NOT NULL,
    cpu_ms        bigint      NOT NULL,
    memory_mib_ms bigint      NOT NULL,
    expires_at    timestamptz NOT NULL
);
CREATE INDEX sandbox_reservations_of_tenant ON sandbox_reservations (tenant_id);
ALTER TABLE sandbox_reservations ENABLE ROW LEVEL SECURITY;

ALTER TABLE usage_by_run ADD COLUMN commands bigint NOT NULL DEFAULT 0, ADD COLUMN cpu_ms bigint NOT NULL DEFAULT 0,
                         ADD COLUMN memory_mib_ms bigint NOT NULL DEFAULT 0;
ALTER TABLE usage_by_day ADD COLUMN commands bigint NOT NULL DEFAULT 0, ADD COLUMN cpu_ms bigint NOT NULL DEFAULT 0,
                         ADD COLUMN memory_mib_ms bigint NOT NULL DEFAULT 0;

-- Reserves what a command may use of its tenant's day: `reserved`, `unbounded` where no quota says anything of days, or
-- the quota of which nothing is left. An effect that is performed again keeps what it had.
CREATE FUNCTION reserve_sandbox_v1(
    p_effect uuid, p_tenant text, p_cpu_ms bigint, p_memory_mib_ms bigint, p_keep interval,
    p_cpu_seconds bigint, p_gib_hours numeric
) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    most_cpu numeric;
    most_memory numeric;
    taken record;
BEGIN
    SELECT coalesce(q.cpu_seconds_per_day, p_cpu_seconds) * 1000, coalesce(q.gib_hours_per_day, p_gib_hours) * 3686400000
    INTO most_cpu, most_memory
    FROM (SELECT 1) one LEFT JOIN sandbox_quotas q ON q.tenant_id = p_tenant;
    IF most_cpu IS NULL AND most_memory IS NULL THEN
        RETURN 'unbounded';
    END IF;
    -- A lost reservation is made again with its effect.
    PERFORM set_config('synchronous_commit', 'off', true);
    -- Held to the end of the transaction: those that come at once are counted one after the other.
    PERFORM pg_advisory_xact_lock(hashtextextended('reservations/' || p_tenant, 0));
    UPDATE sandbox_reservations SET expires_at = clock_timestamp() + p_keep WHERE effect_id = p_effect;
    IF FOUND THEN
        RETURN 'reserved';
    END IF;
    -- One statement, one snapshot: a command that is counted meanwhile is in one of the two sums and not in both.
    SELECT u.cpu_ms + r.cpu_ms AS cpu_ms, u.memory_mib_ms + r.memory_mib_ms AS memory_mib_ms INTO taken
    FROM (SELECT coalesce(sum(cpu_ms), 0) AS cpu_ms, coalesce(sum(memory_mib_ms), 0) AS memory_mib_ms
          FROM usage_by_day
          WHERE tenant_id = p_tenant AND day = (clock_timestamp() AT TIME ZONE 'UTC')::date) u,
         (SELECT coalesce(sum(cpu_ms), 0) AS cpu_ms, coalesce(sum(memory_mib_ms), 0) AS memory_mib_ms
          FROM sandbox_reservations WHERE tenant_id = p_tenant AND expires_at > clock_timestamp()) r;
    IF taken.cpu_ms >= most_cpu THEN
        RETURN 'cpu_seconds_per_day';
    ELSIF taken.memory_mib_ms >= most_memory THEN
        RETURN 'gib_hours_per_day';
    END IF;
    INSERT INTO sandbox_reservations (effect_id, tenant_id, cpu_ms, memory_mib_ms, expires_at)
    VALUES (p_effect, p_tenant, p_cpu_ms, p_memory_mib_ms, clock_timestamp() + p_keep);
    RETURN 'reserved';
END $$;

-- Of these tenants, those whose sandboxes are bounded, and by how many. Their claims wait for each other until the
-- transaction ends, so that each counts what the one before has taken.
CREATE FUNCTION bound_sandboxes_v1(p_tenants text[], p_default integer)
RETURNS TABLE (tenant text, most integer)
LANGUAGE plpgsql AS $$
BEGIN
    FOR tenant, most IN
        SELECT t.name, coalesce(q.concurrent_sandboxes, p_default)
        FROM (SELECT DISTINCT unnest(p_tenants) AS name) t LEFT JOIN sandbox_quotas q ON q.tenant_id = t.name
        WHERE coalesce(q.concurrent_sandboxes, p_default) IS NOT NULL
        ORDER BY t.name
    LOOP
        PERFORM pg_advisory_xact_lock(hashtextextended('sandboxes/' || tenant, 0));
        RETURN NEXT;
    END LOOP;
END $$;

-- As claim_effects_v1, for sandbox operations: of a tenant whose sandboxes are all at work, or whose others have waited
-- for longer, none is claimed. It is then due, for whoever looks for the oldest.
CREATE FUNCTION claim_sandboxes_v1(p_ids uuid[], p_tokens uuid[], p_owner text, p_lease interval, p_default integer)
RETURNS TABLE (id uuid, token uuid, attempt integer, cancel_requested boolean)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    tenants text[];
    bounds integer[];
BEGIN
    SELECT array_agg(b.tenant), array_agg(b.most) INTO tenants, bounds
    FROM bound_sandboxes_v1(ARRAY(SELECT DISTINCT e.tenant_id FROM effects e WHERE e.id = ANY (p_ids)), p_default) b;
    RETURN QUERY
        WITH wanted AS (
            SELECT e.id, e.tenant_id, c.token, row_number() OVER (PARTITION BY e.tenant_id ORDER BY e.created_at) AS nth
            FROM effects e JOIN unnest(p_ids, p_tokens) AS c (id, token) ON c.id = e.id
            WHERE NOT e.recorded AND (e.token IS NULL OR e.due_at < clock_timestamp())
        ), rooms AS (
            SELECT b.tenant, b.most - count(e.id) AS room
            FROM unnest(tenants, bounds) AS b (tenant, most)
            LEFT JOIN effects e ON e.kind = 'sandbox' AND e.tenant_id = b.tenant AND NOT e.recorded
                AND (e.due_at < clock_timestamp() OR e.token IS NOT NULL)
                AND NOT EXISTS (SELECT FROM wanted w WHERE w.id = e.id)
            GROUP BY b.tenant, b.most
        ), judged AS (
            SELECT w.*, r.room IS NULL OR w.nth <= r.room AS fits
            FROM wanted w LEFT JOIN rooms r ON r.tenant = w.tenant_id
        ), waiting AS (
            UPDATE effects e SET due_at = clock_timestamp() FROM judged j
            WHERE e.id = j.id AND NOT j.fits AND e.token IS NULL AND e.due_at > clock_timestamp()
        )
        UPDATE effects e SET token = j.token, attempt = e.attempt + 1, owner = p_owner,
                             due_at = clock_timestamp() + p_lease
        FROM judged j
        WHERE e.id = j.id AND j.fits AND NOT e.recorded AND (e.token IS NULL OR e.due_at < clock_timestamp())
        RETURNING e.id, e.token, e.attempt, e.cancel_requested;
END $$;

-- As claim_due_effects_v1, for sandbox operations. Those of tenants without room are passed over, and hold up nobody.
CREATE FUNCTION claim_due_sandboxes_v1(
    p_tokens uuid[], p_owner text, p_lease interval, p_fresh boolean, p_default integer
) RETURNS SETOF effects
LANGUAGE plpgsql AS $$
DECLARE
    tenants text[];
    bounds integer[];
BEGIN
    SELECT array_agg(b.tenant), array_agg(b.most) INTO tenants, bounds
    FROM bound_sandboxes_v1(ARRAY(
        SELECT DISTINCT e.tenant_id FROM effects e
        WHERE e.kind = 'sandbox' AND NOT e.recorded
              AND (e.due_at < clock_timestamp() OR (p_fresh AND e.token IS NULL))), p_default) b;
    RETURN QUERY
        WITH due AS (
            SELECT e.id, e.tenant_id, row_number() OVER (PARTITION BY e.tenant_id ORDER BY e.due_at) AS nth
            FROM effects e
            WHERE e.kind = 'sandbox' AND NOT e.recorded
                  AND (e.due_at < clock_timestamp() OR (p_fresh AND e.token IS NULL))
        ), rooms AS (
            SELECT b.tenant, b.most - count(e.id) AS room
            FROM unnest(tenants, bounds) AS b (tenant, most)
            LEFT JOIN effects e ON e.kind = 'sandbox' AND e.tenant_id = b.tenant AND NOT e.recorded
                AND e.token IS NOT NULL AND e.due_at >= clock_timestamp()
            GROUP BY b.tenant, b.most
        ), picked AS (
            SELECT e.id, e.due_at
            FROM effects e JOIN due d ON d.id = e.id LEFT JOIN rooms r ON r.tenant = d.tenant_id
            WHERE (r.room IS NULL OR d.nth <= r.room) AND NOT e.recorded
                  AND (e.due_at < clock_timestamp() OR (p_fresh AND e.token IS NULL))
            ORDER BY e.due_at LIMIT cardinality(p_tokens) FOR UPDATE OF e SKIP LOCKED
        ), placed AS (
            SELECT p.id, row_number() OVER (ORDER BY p.due_at) AS place FROM picked p
        )
        UPDATE effects e SET token = p_tokens[placed.place], attempt = e.attempt + 1, owner = p_owner,
                             due_at = clock_timestamp() + p_lease
        FROM placed WHERE e.id = placed.id
        RETURNING e.*;
END $$;

-- The workers' own: the edge neither claims nor reserves.
REVOKE ALL ON FUNCTION reserve_sandbox_v1(uuid, text, bigint, bigint, interval, bigint, numeric),
    bound_sandboxes_v1(text[], integer), claim_sandboxes_v1(uuid[], uuid[], text, interval, integer),
    claim_due_sandboxes_v1(uuid[], text, interval, boolean, integer) FROM PUBLIC;
