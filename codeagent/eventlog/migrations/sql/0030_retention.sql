-- Whose content stays, whatever a policy or a request for erasure says. Placing one takes the lock of the tenant's holds
-- alone, removing content takes it with others: neither overlooks the other.
CREATE TABLE legal_holds (
    tenant_id   text        NOT NULL,
    subject_id  text        NOT NULL,
    created_by  text        NOT NULL,
    created_at  timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, subject_id)
);
ALTER TABLE legal_holds ENABLE ROW LEVEL SECURITY;
CREATE POLICY of_tenant ON legal_holds TO codeagent_edge
    USING (tenant_id = (SELECT current_tenant())) WITH CHECK (tenant_id = (SELECT current_tenant()));
CREATE POLICY of_services ON legal_holds TO codeagent_service USING (true);
GRANT SELECT, INSERT, DELETE ON legal_holds TO codeagent_edge;
GRANT SELECT ON legal_holds TO codeagent_service;

-- Which sealed content there still is of a run, in all of its streams, and how old it is.
CREATE INDEX events_sealed_of_run ON events ((metadata ->> 'runid'))
    WHERE sealed IS NOT NULL AND metadata ->> 'runid' IS NOT NULL;
CREATE INDEX events_sealed_of_runs_by_time ON events (occurred_at)
    WHERE sealed IS NOT NULL AND metadata ->> 'runid' IS NOT NULL;

-- Whether somebody is held whom any fact of the run names: who submitted it, or has said something in it.
CREATE FUNCTION is_run_held_v1(p_tenant text, p_run text) RETURNS boolean
LANGUAGE sql STABLE AS $$
    SELECT EXISTS (
        SELECT FROM legal_holds h JOIN events e
            ON e.tenant_id = h.tenant_id AND e.metadata ->> 'runid' = p_run AND e.sealed IS NOT NULL
        WHERE h.tenant_id = p_tenant
            AND (h.subject_id = e.metadata ->> 'authid' OR position(convert_to(h.subject_id, 'UTF8') IN e.data) > 0))
$$;
REVOKE ALL ON FUNCTION is_run_held_v1 FROM PUBLIC;
GRANT EXECUTE ON FUNCTION is_run_held_v1 TO codeagent_service;

-- Takes the sealed content of runs out of the log, and says of how many events of which run: of runs that are over for a
-- day at least and that no hold keeps, and of no others. Services cannot change events otherwise. The lock is that of the
-- stream that the fact of it belongs to: several relays take turns.
CREATE FUNCTION retire_content_v1(p_tenant text, p_runs text[]) RETURNS TABLE (retired text, of_events bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_runs text[];
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('retention-' || p_tenant, 0));
    PERFORM pg_advisory_xact_lock_shared(hashtextextended('legal_holds-' || p_tenant, 0));
    SELECT array_agg(r.id) INTO v_runs FROM unnest(p_runs) AS r (id)
    WHERE NOT is_run_held_v1(p_tenant, r.id) AND EXISTS (
        SELECT FROM events x WHERE x.stream_id = 'run-' || r.id AND x.tenant_id = p_tenant
            AND x.event_type IN ('run.completed', 'run.failed', 'run.canceled', 'run.rejected')
            AND x.occurred_at < clock_timestamp() - interval '1 day');
    RETURN QUERY
        WITH emptied AS (
            UPDATE events e SET sealed = NULL
            WHERE e.tenant_id = p_tenant AND e.sealed IS NOT NULL AND e.metadata ->> 'runid' = ANY (v_runs)
            RETURNING e.metadata ->> 'runid' AS id)
        SELECT id, count(*) FROM emptied GROUP BY id;
END $$;
REVOKE ALL ON FUNCTION retire_content_v1 FROM PUBLIC;
GRANT EXECUTE ON FUNCTION retire_content_v1 TO codeagent_service;

-- Which run names an artifact; '' for facts of none.
ALTER TABLE artifact_references ADD COLUMN run_id text NOT NULL DEFAULT '';
ALTER TABLE artifact_references DROP CONSTRAINT artifact_references_pkey,
    ADD PRIMARY KEY (tenant_id, digest, key_id, run_id);
CREATE INDEX artifact_references_of_run ON artifact_references (run_id) WHERE run_id <> '';
