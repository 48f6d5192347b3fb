-- Only a cancel can come before the submission, and only once.
CREATE FUNCTION is_submitted_v1(p_run text) RETURNS boolean
LANGUAGE sql STABLE AS $$
    SELECT EXISTS (SELECT FROM events
                   WHERE stream_id = 'run-' || p_run AND stream_version <= 2 AND event_type = 'run.submitted')
$$;

-- Notes submissions before their commands are sent; with outbox ids, the commands too, in the same commit.
-- Returns for each what is stored: a fingerprint that differs from the given one is a key used for two bodies.
-- A run that the log has, and whose row was forgotten, is not taken again and has no row in the answer.
CREATE FUNCTION accept_runs_v1(
    p_runs text[], p_tenants text[], p_fingerprints text[], p_requests jsonb[],
    p_outbox uuid[], p_topics text[], p_headers jsonb[], p_values bytea[]
) RETURNS TABLE (run_id text, fingerprint text, accepted boolean, inserted boolean)
LANGUAGE plpgsql AS $$
BEGIN
    IF p_outbox[1] IS NULL THEN
        PERFORM set_config('synchronous_commit', 'off', true);
    END IF;
    RETURN QUERY
        WITH given AS (
            SELECT DISTINCT ON (g.run) g.*
            FROM unnest(p_runs, p_tenants, p_fingerprints, p_requests, p_outbox, p_topics, p_headers, p_values)
                AS g (run, tenant, fingerprint, request, outbox, topic, headers, value)
            ORDER BY g.run
        ), fresh AS (
            INSERT INTO submissions AS s (run_id, tenant_id, fingerprint, request, accepted)
            SELECT g.run, g.tenant, g.fingerprint, g.request, g.outbox IS NOT NULL FROM given g
            WHERE NOT is_submitted_v1(g.run)
            ON CONFLICT ON CONSTRAINT submissions_pkey DO NOTHING
            RETURNING s.run_id, s.fingerprint, s.accepted
        ), sent AS (
            INSERT INTO outbox (id, topic, key, tenant_id, headers, value, due_at)
            SELECT g.outbox, g.topic, g.run, g.tenant, g.headers, g.value, clock_timestamp() + interval '2 seconds'
            FROM given g JOIN fresh f ON f.run_id = g.run WHERE g.outbox IS NOT NULL
        )
        SELECT f.run_id, f.fingerprint, f.accepted, true FROM fresh f
        UNION ALL
        SELECT s.run_id, s.fingerprint, s.accepted, false FROM submissions s
        WHERE s.run_id = ANY (p_runs);
END $$;
