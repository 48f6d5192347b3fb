-- Whose content stays, and of which runs: one set, for whoever looks for what is due and whoever takes it out. Processing
-- that is restricted (Art. 18) leaves storing, so content of a user who is restricted stays as well.
CREATE INDEX users_restricted ON users (tenant_id, id) WHERE restricted_at IS NOT NULL;
CREATE VIEW held_subjects AS
    SELECT tenant_id, subject_id FROM legal_holds
    UNION
    SELECT tenant_id, id FROM users WHERE restricted_at IS NOT NULL AND erased_at IS NULL;

-- The runs that they submitted, or did something in, be it without a word; and those that run for them: whatever is sealed
-- with their key. No service is a person, which leaves few events to look up.
CREATE INDEX events_of_persons ON events ((metadata ->> 'authid'))
    WHERE metadata ->> 'runid' IS NOT NULL AND metadata ->> 'authtype' <> 'system';
CREATE VIEW held_runs AS
    SELECT e.tenant_id, e.metadata ->> 'runid' AS run_id
    FROM held_subjects h JOIN events e ON e.tenant_id = h.tenant_id AND e.metadata ->> 'authid' = h.subject_id
    WHERE e.metadata ->> 'runid' IS NOT NULL AND e.metadata ->> 'authtype' <> 'system'
    UNION
    SELECT e.tenant_id, e.metadata ->> 'runid'
    FROM held_subjects h JOIN events e ON e.tenant_id = h.tenant_id AND e.sealed IS NOT NULL AND e.key_id =
        'sk_' || left(encode(sha256(convert_to(h.tenant_id, 'UTF8') || '\x00'::bytea
                                    || convert_to(h.subject_id, 'UTF8')), 'hex'), 32)
    WHERE e.metadata ->> 'runid' IS NOT NULL;
REVOKE ALL ON held_subjects, held_runs FROM PUBLIC;
GRANT SELECT ON held_subjects, held_runs TO codeagent_service;

CREATE OR REPLACE FUNCTION is_run_held_v1(p_tenant text, p_run text) RETURNS boolean
LANGUAGE sql STABLE AS $$
    SELECT EXISTS (SELECT FROM held_runs WHERE tenant_id = p_tenant AND run_id = p_run)
$$;
