-- Whose content stays. Processing that is restricted (Art. 18) leaves storing, so that of a restricted user does as well.
CREATE INDEX users_restricted ON users (tenant_id, id) WHERE restricted_at IS NOT NULL;
CREATE VIEW held_subjects AS
    SELECT tenant_id, subject_id,
           'sk_' || left(encode(sha256(convert_to(tenant_id, 'UTF8') || '\x00'::bytea || convert_to(subject_id, 'UTF8')),
                                'hex'), 32) AS key_id
    FROM (SELECT tenant_id, subject_id FROM legal_holds
          UNION
          SELECT tenant_id, id FROM users WHERE restricted_at IS NOT NULL AND erased_at IS NULL) h;
GRANT SELECT ON held_subjects TO codeagent_service;

-- The runs of which content stays: that they submitted or did something in, be it without a word, and that run for them,
-- which is all that is sealed with their keys. One set, for whoever looks for what is due and for whoever takes it out.
-- Whom it is about is given: the database then knows for how many it looks, and does not read the whole log for them.
CREATE INDEX events_of_persons ON events ((metadata ->> 'authid'))
    WHERE metadata ->> 'runid' IS NOT NULL AND metadata ->> 'authtype' <> 'system';
CREATE FUNCTION held_runs_v1(p_keys text[], p_subjects text[]) RETURNS TABLE (tenant_id text, run_id text)
LANGUAGE sql STABLE AS $$
    SELECT e.tenant_id, e.metadata ->> 'runid' FROM events e
    WHERE e.key_id = ANY (p_keys) AND e.sealed IS NOT NULL AND e.metadata ->> 'runid' IS NOT NULL
    UNION
    SELECT e.tenant_id, e.metadata ->> 'runid' FROM events e
    WHERE e.metadata ->> 'authid' = ANY (p_subjects) AND e.metadata ->> 'runid' IS NOT NULL
        AND e.metadata ->> 'authtype' <> 'system'
$$;
CREATE OR REPLACE FUNCTION is_run_held_v1(p_tenant text, p_run text) RETURNS boolean
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_keys text[];
    v_subjects text[];
BEGIN
    SELECT array_agg(h.key_id), array_agg(h.subject_id) INTO v_keys, v_subjects
    FROM held_subjects h WHERE h.tenant_id = p_tenant;
    RETURN EXISTS (
        SELECT FROM held_runs_v1(v_keys, v_subjects) r WHERE r.tenant_id = p_tenant AND r.run_id = p_run);
END $$;
REVOKE ALL ON FUNCTION held_runs_v1 FROM PUBLIC;
GRANT EXECUTE ON FUNCTION held_runs_v1 TO codeagent_service;
