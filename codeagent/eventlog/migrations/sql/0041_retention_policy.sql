-- For how long at least the content of runs is kept after their end; as long as the log where there is no row. It is
-- written by the owner of the tables alone (`codeagent db upgrade`): services read it, and are held to it below.
CREATE TABLE retention_policy (
    one    boolean          PRIMARY KEY DEFAULT true CHECK (one),
    days   double precision NOT NULL CHECK (days BETWEEN 1 AND 36500),
    set_at timestamptz      NOT NULL DEFAULT clock_timestamp()
);
GRANT SELECT ON retention_policy TO codeagent_service;

-- When and in which transaction an event was recorded is said by the database, and by nobody who adds one: a run's end
-- cannot be dated back. A later migration that adds a column grants it.
REVOKE INSERT ON events FROM codeagent_service;
DO $$ BEGIN
    EXECUTE (SELECT format('GRANT INSERT (%s) ON events TO codeagent_service',
                           string_agg(quote_ident(attname), ', ' ORDER BY attnum))
             FROM pg_attribute
             WHERE attrelid = 'events'::regclass AND attnum > 0 AND NOT attisdropped
                   AND attname NOT IN ('global_position', 'transaction_id', 'recorded_at'));
END $$;

-- Whether a run has ended so many days ago, which are no fewer than the policy says, and no hold keeps its content.
CREATE FUNCTION is_run_due_v1(p_tenant text, p_run text, p_days double precision) RETURNS boolean
LANGUAGE sql STABLE AS $$
    SELECT EXISTS (SELECT FROM retention_policy p WHERE p_days >= p.days)
        AND EXISTS (
            SELECT FROM events x
            WHERE x.stream_id = 'run-' || p_run AND x.tenant_id = p_tenant
                AND x.event_type IN ('run.completed', 'run.failed', 'run.canceled', 'run.rejected')
                AND greatest(x.occurred_at, x.recorded_at)
                    < clock_timestamp() - make_interval(secs => p_days * 86400))
        AND NOT is_run_held_v1(p_tenant, p_run)
$$;

-- Which of these runs are due, and how many of their events have content. Until the end of the transaction no hold is
-- placed, and several relays take turns: the second lock is that of the stream that the fact belongs to.
CREATE FUNCTION runs_due_v1(p_tenant text, p_runs text[], p_days double precision)
RETURNS TABLE (run_id text, of_events bigint)
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('retention-' || p_tenant, 0));
    PERFORM pg_advisory_xact_lock_shared(hashtextextended('legal_holds-' || p_tenant, 0));
    RETURN QUERY
        SELECT e.metadata ->> 'runid', count(*) FROM events e
        WHERE e.tenant_id = p_tenant AND e.sealed IS NOT NULL AND e.metadata ->> 'runid' = ANY (
            SELECT r.id FROM unnest(p_runs) AS r (id) WHERE is_run_due_v1(p_tenant, r.id, p_days))
        GROUP BY 1;
END $$;

-- Takes the sealed content of runs out of the log: of those that a fact of this very transaction names, all of which have
-- to be due, and out of as many events as it says. Services cannot change events otherwise.
CREATE FUNCTION retire_content_v2(p_tenant text, p_fact uuid) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_fact jsonb;
    v_runs text[];
    v_rows bigint;
BEGIN
    SELECT convert_from(e.data, 'UTF8')::jsonb INTO v_fact FROM events e
    WHERE e.event_id = p_fact AND e.tenant_id = p_tenant AND e.stream_id = 'retention-' || p_tenant
        AND e.event_type = 'retention.content_retired' AND e.transaction_id = pg_current_xact_id();
    SELECT array_agg(id) INTO v_runs FROM jsonb_array_elements_text(v_fact -> 'run_ids') AS r (id);
    IF v_runs IS NULL THEN
        RAISE insufficient_privilege USING MESSAGE = 'no fact of this transaction says which content goes';
    END IF;
    PERFORM pg_advisory_xact_lock_shared(hashtextextended('legal_holds-' || p_tenant, 0));
    IF EXISTS (SELECT FROM unnest(v_runs) AS r (id)
               WHERE is_run_due_v1(p_tenant, r.id, (v_fact ->> 'days')::double precision) IS NOT TRUE) THEN
        RAISE insufficient_privilege USING MESSAGE = 'content of a run that is not due';
    END IF;
    UPDATE events e SET sealed = NULL
    WHERE e.tenant_id = p_tenant AND e.sealed IS NOT NULL AND e.metadata ->> 'runid' = ANY (v_runs);
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    IF v_rows IS DISTINCT FROM (v_fact ->> 'events')::bigint THEN
        RAISE serialization_failure USING MESSAGE = 'something was said of the runs meanwhile';
    END IF;
END $$;

REVOKE ALL ON FUNCTION is_run_due_v1, runs_due_v1, retire_content_v2 FROM PUBLIC;
GRANT EXECUTE ON FUNCTION is_run_due_v1, runs_due_v1, retire_content_v2 TO codeagent_service;

-- It believed whoever called it.
DROP FUNCTION retire_content_v1;
