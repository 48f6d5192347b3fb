-- The runs of projects and sessions, noted when they are accepted: what the list of runs knows a moment later is too
-- late for quotas, and for who comes next. `ended` is a memory of what the log has told, so that it is asked once for each run.
CREATE TABLE placements (
    run_id     text        PRIMARY KEY,
    tenant_id  text        NOT NULL,
    project_id text,
    session_id text,
    ended      boolean     NOT NULL DEFAULT false,
    placed_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX placements_open ON placements (project_id) WHERE NOT ended;
CREATE INDEX placements_of_project ON placements (project_id, placed_at);
CREATE INDEX placements_of_session ON placements (session_id, placed_at) WHERE session_id IS NOT NULL;

ALTER TABLE placements ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON placements TO codeagent_edge;
CREATE POLICY of_tenant ON placements FOR SELECT TO codeagent_edge USING (tenant_id = (SELECT current_tenant()));

-- How an accepted run is: `ended`; `open`; or `lost`, which is one whose command the broker never confirmed. A terminal
-- event is the last of its stream.
CREATE FUNCTION run_progress_v1(p_run text) RETURNS text
LANGUAGE sql STABLE AS $$
    SELECT CASE
        WHEN n.type IN ('run.completed', 'run.failed', 'run.canceled', 'run.rejected') THEN 'ended'
        WHEN n.type IS NOT NULL THEN 'open'
        WHEN EXISTS (SELECT FROM submissions s WHERE s.run_id = p_run
                     AND (s.accepted OR s.created_at > clock_timestamp() - interval '60 seconds')) THEN 'open'
        ELSE 'lost'
    END
    FROM (SELECT (SELECT e.event_type FROM events e WHERE e.stream_id = 'run-' || p_run
                  ORDER BY e.stream_version DESC LIMIT 1) AS type) n
$$;

-- Why a project takes no further run now, and when to come back; no row where it takes one. The caller has its lock.
CREATE FUNCTION refusal_of_project_v1(p_project projects) RETURNS TABLE (refusal text, retry_after integer)
LANGUAGE plpgsql AS $$
DECLARE
    v_today timestamp := date_trunc('day', clock_timestamp() AT TIME ZONE 'UTC');
BEGIN
    IF p_project.archived_at IS NOT NULL THEN
        RETURN QUERY SELECT 'project_archived', 0;
        RETURN;
    END IF;
    UPDATE placements l SET ended = true
    WHERE l.project_id = p_project.id AND NOT l.ended AND run_progress_v1(l.run_id) = 'ended';
    IF p_project.max_concurrent_runs <= (SELECT count(*) FROM placements l
            WHERE l.project_id = p_project.id AND NOT l.ended AND run_progress_v1(l.run_id) = 'open') THEN
        RETURN QUERY SELECT 'concurrency_limit', 5;
    ELSIF p_project.max_runs_per_day <= (SELECT count(*) FROM placements l
            WHERE l.project_id = p_project.id AND l.placed_at >= v_today AT TIME ZONE 'UTC') THEN
        RETURN QUERY SELECT 'quota_exceeded', ceil(extract(epoch FROM
            v_today + interval '1 day' - clock_timestamp() AT TIME ZONE 'UTC'))::integer;
    END IF;
END $$;

-- Why a session takes no further run now; no row where it takes one. The run has to follow the one that was the newest
-- when it was made up, else it would go on from files that are not the newest. The caller has the session's lock.
CREATE FUNCTION refusal_of_session_v1(p_session sessions, p_after text) RETURNS TABLE (refusal text, retry_after integer)
LANGUAGE plpgsql AS $$
DECLARE
    v_newest record;
BEGIN
    IF p_session.closed_at IS NOT NULL THEN
        RETURN QUERY SELECT 'session_closed', 0;
        RETURN;
    END IF;
    UPDATE placements l SET ended = true
    WHERE l.session_id = p_session.id AND NOT l.ended AND run_progress_v1(l.run_id) = 'ended';
    SELECT l.run_id, l.ended INTO v_newest FROM placements l
    WHERE l.session_id = p_session.id AND (l.ended OR run_progress_v1(l.run_id) <> 'lost')
    ORDER BY l.placed_at DESC LIMIT 1;
    IF NOT coalesce(v_newest.ended, true) OR v_newest.run_id IS DISTINCT FROM p_after THEN
        RETURN QUERY SELECT 'session_busy', 0;
    END IF;
END $$;

-- As `accept_runs_v1`, for one run of a project, a session or both. Submissions to one of them wait for each other here,
-- so that quotas hold and a session has one run at work. A repeat is answered whatever has become of them since.
CREATE FUNCTION accept_placed_run_v1(
    p_run text, p_tenant text, p_fingerprint text, p_request jsonb, p_outbox uuid, p_topic text, p_headers jsonb,
    p_value bytea, p_project text, p_session text, p_after text
) RETURNS TABLE (run_id text, fingerprint text, accepted boolean, inserted boolean, refusal text, retry_after integer)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
DECLARE
    v_project projects;
    v_session sessions;
BEGIN
    IF p_session IS NOT NULL THEN
        SELECT * INTO STRICT v_session FROM sessions s
        WHERE s.id = p_session AND s.tenant_id = p_tenant FOR NO KEY UPDATE;
    END IF;
    IF p_project IS NOT NULL THEN
        SELECT * INTO STRICT v_project FROM projects p
        WHERE p.id = p_project AND p.tenant_id = p_tenant FOR NO KEY UPDATE;
    END IF;
    IF NOT EXISTS (SELECT FROM submissions s WHERE s.run_id = p_run) AND NOT is_submitted_v1(p_run) THEN
        RETURN QUERY
            SELECT p_run, '', false, false, r.refusal, r.retry_after FROM (
                SELECT * FROM refusal_of_session_v1(v_session, p_after) WHERE p_session IS NOT NULL
                UNION ALL
                SELECT * FROM refusal_of_project_v1(v_project) WHERE p_project IS NOT NULL) r
            LIMIT 1;
        IF FOUND THEN
            RETURN;
        END IF;
        INSERT INTO placements (run_id, tenant_id, project_id, session_id)
        VALUES (p_run, p_tenant, p_project, p_session);
    END IF;
    RETURN QUERY
        SELECT a.run_id, a.fingerprint, a.accepted, a.inserted, NULL::text, NULL::integer
        FROM accept_runs_v1(ARRAY[p_run], ARRAY[p_tenant], ARRAY[p_fingerprint], ARRAY[p_request], ARRAY[p_outbox],
                            ARRAY[p_topic], ARRAY[p_headers], ARRAY[p_value]) a;
END $$;

REVOKE ALL ON FUNCTION run_progress_v1(text), refusal_of_project_v1(projects), refusal_of_session_v1(sessions, text),
    accept_placed_run_v1(text, text, text, jsonb, uuid, text, jsonb, bytea, text, text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    accept_placed_run_v1(text, text, text, jsonb, uuid, text, jsonb, bytea, text, text, text) TO codeagent_edge;
