-- What is written about a person in requests of theirs is sealed with their key from now on. An erasure takes it, and what
-- is there of before, in clear; and the digest of what a request said, as it does with those of keys and sessions.
CREATE FUNCTION erase_identity_v3(p_user text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_counts jsonb := erase_identity_v2(p_user);
    v_rows bigint;
BEGIN
    UPDATE privacy_requests SET note = '', reason = '', extension = '', fingerprint = ''
    WHERE subject_id = p_user AND tenant_id = current_tenant();
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    RETURN v_counts || jsonb_build_object('privacy_requests', v_rows);
END $$;
REVOKE ALL ON FUNCTION erase_identity_v3 FROM PUBLIC;
GRANT EXECUTE ON FUNCTION erase_identity_v3 TO codeagent_edge;

-- Of those who were erased before.
UPDATE privacy_requests r SET note = '', reason = '', extension = '', fingerprint = '' FROM users u
WHERE u.erased_at IS NOT NULL AND u.id = r.subject_id AND u.tenant_id = r.tenant_id;
