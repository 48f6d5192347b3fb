-- What model calls may spend that usage does not count yet: at first the most that a call can come to, then what it has
-- come to. Whoever counts a call removes its row in the same transaction, so that it is in one of the two at any moment.
CREATE TABLE call_reservations (
    effect_id    uuid        PRIMARY KEY,
    token        uuid        NOT NULL,
    tenant_id    text        NOT NULL,
    run_id       text        NOT NULL,
    principal_id text        NOT NULL,
    project_id   text,
    usd          numeric     NOT NULL,
    tokens       bigint      NOT NULL,
    expires_at   timestamptz NOT NULL
);
CREATE INDEX call_reservations_of_tenant ON call_reservations (tenant_id);
ALTER TABLE call_reservations ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON call_reservations TO codeagent_edge;
CREATE POLICY of_tenant ON call_reservations FOR SELECT TO codeagent_edge
    USING (tenant_id = (SELECT current_tenant()));

-- Reserves what a call may spend at most, of its run's own limit and of every budget that refuses and concerns it:
-- `reserved`, with the tokens that its reply may have, which are fewer where fewer fit; `unbounded` where nothing limits
-- it; or `refused`, with the limit that has the least room. `p_input_usd` is what is told the model costs, `p_output_usd`
-- each token of its reply; both are null where no price is known, and dollars are then not counted. An effect that is
-- performed again has its reservation made anew.
CREATE FUNCTION reserve_call_v1(
    p_effect uuid, p_token uuid, p_tenant text, p_run text, p_principal text, p_project text, p_max_cost numeric,
    p_input_tokens bigint, p_output_tokens bigint, p_least_output bigint, p_input_usd numeric, p_output_usd numeric,
    p_keep interval
) RETURNS TABLE (verdict text, output_tokens bigint, budget_id text, unit text, amount numeric, room numeric)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    today date := (clock_timestamp() AT TIME ZONE 'UTC')::date;
    tightest record;
BEGIN
    -- Held to the end of the transaction: calls of one run, and of runs that one budget concerns, are counted one after
    -- the other.
    PERFORM pg_advisory_xact_lock(hashtextextended('spending/' || p_run, 0));
    PERFORM FROM budgets b
    WHERE b.tenant_id = p_tenant AND b.action = 'refuse'
          AND CASE b.scope WHEN 'project' THEN b.scope_id = p_project
                           WHEN 'principal' THEN b.scope_id = p_principal ELSE true END
    ORDER BY b.id FOR NO KEY UPDATE;
    IF p_max_cost IS NULL AND NOT EXISTS (
        SELECT FROM budgets b WHERE b.tenant_id = p_tenant AND b.action = 'refuse') THEN
        RETURN QUERY SELECT 'unbounded', p_output_tokens, NULL::text, NULL::text, NULL::numeric, NULL::numeric;
        RETURN;
    END IF;
    -- One statement, one snapshot: a call that is counted meanwhile is in one of the two sums and not in both.
    WITH held AS MATERIALIZED (
        SELECT r.* FROM call_reservations r
        WHERE r.tenant_id = p_tenant AND r.effect_id <> p_effect AND r.expires_at > clock_timestamp()
    ), rooms AS (
        SELECT b.id AS budget_id, b.unit, b.amount, b.amount - used.spent - (
                   SELECT coalesce(sum(CASE b.unit WHEN 'usd' THEN h.usd ELSE h.tokens END), 0) FROM held h
                   WHERE CASE b.scope WHEN 'project' THEN h.project_id = b.scope_id
                                      WHEN 'principal' THEN h.principal_id = b.scope_id ELSE true END) AS room
        FROM budgets b
        CROSS JOIN LATERAL (
            SELECT coalesce(sum(CASE b.unit WHEN 'usd' THEN d.cost_usd ELSE d.input_tokens + d.output_tokens END), 0)
                       AS spent
            FROM usage_by_day d
            WHERE d.tenant_id = p_tenant
                  AND CASE b.scope WHEN 'project' THEN d.project_id = b.scope_id
                                   WHEN 'principal' THEN d.principal_id = b.scope_id ELSE true END
                  AND d.day >= CASE b.period WHEN 'day' THEN today WHEN 'month' THEN date_trunc('month', today)::date
                                             ELSE '-infinity' END) used
        WHERE b.tenant_id = p_tenant AND b.action = 'refuse'
              AND CASE b.scope WHEN 'project' THEN b.scope_id = p_project
                               WHEN 'principal' THEN b.scope_id = p_principal ELSE true END
        UNION ALL
        SELECT NULL, 'usd', p_max_cost,
               p_max_cost - coalesce((SELECT u.cost_usd FROM usage_runs u WHERE u.run_id = p_run), 0)
                          - (SELECT coalesce(sum(h.usd), 0) FROM held h WHERE h.run_id = p_run)
        WHERE p_max_cost IS NOT NULL
    )
    SELECT r.*, CASE
               WHEN r.unit = 'tokens' THEN r.room - p_input_tokens
               WHEN p_input_usd IS NULL OR p_input_usd + p_output_usd = 0 THEN p_output_tokens
               WHEN p_output_usd > 0 THEN floor((r.room - p_input_usd) / p_output_usd)
               WHEN r.room >= p_input_usd THEN p_output_tokens
               ELSE -1
           END AS fitting INTO tightest
    FROM rooms r ORDER BY fitting LIMIT 1;
    IF tightest.fitting < p_least_output THEN
        RETURN QUERY SELECT 'refused', 0::bigint, tightest.budget_id::text, tightest.unit::text,
                            tightest.amount::numeric, greatest(tightest.room, 0)::numeric;
        RETURN;
    END IF;
    output_tokens := least(p_output_tokens, coalesce(tightest.fitting, p_output_tokens))::bigint;
    INSERT INTO call_reservations AS c (effect_id, token, tenant_id, run_id, principal_id, project_id, usd, tokens,
                                        expires_at)
    VALUES (p_effect, p_token, p_tenant, p_run, p_principal, p_project,
            coalesce(p_input_usd + output_tokens * p_output_usd, 0), p_input_tokens + output_tokens,
            clock_timestamp() + p_keep)
    ON CONFLICT (effect_id) DO UPDATE SET token = excluded.token, usd = excluded.usd, tokens = excluded.tokens,
                                          expires_at = excluded.expires_at;
    RETURN QUERY SELECT 'reserved', output_tokens, NULL::text, NULL::text, NULL::numeric, NULL::numeric;
END $$;

-- The workers' own: the edge reserves nothing.
REVOKE ALL ON FUNCTION reserve_call_v1 FROM PUBLIC;
