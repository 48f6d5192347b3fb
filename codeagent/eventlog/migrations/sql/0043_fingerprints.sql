-- The fingerprint of the request that made a key or a session is a digest of what its maker called it: who guesses the name
-- finds it by that. It goes with the name, and a repeat of that request, which nobody can make any more, is refused.
CREATE FUNCTION erase_identity_v2(p_user text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_counts jsonb := erase_identity_v1(p_user);
BEGIN
    UPDATE api_keys SET fingerprint = '' WHERE principal_id = p_user AND tenant_id = current_tenant();
    UPDATE sessions SET fingerprint = '' WHERE created_by = p_user AND tenant_id = current_tenant();
    RETURN v_counts;
END $$;
REVOKE ALL ON FUNCTION erase_identity_v2 FROM PUBLIC;
GRANT EXECUTE ON FUNCTION erase_identity_v2 TO codeagent_edge;

-- Of those who were erased before.
UPDATE api_keys k SET fingerprint = '' FROM users u
WHERE u.erased_at IS NOT NULL AND u.id = k.principal_id AND u.tenant_id = k.tenant_id;
UPDATE sessions s SET fingerprint = '' FROM users u
WHERE u.erased_at IS NOT NULL AND u.id = s.created_by AND u.tenant_id = s.tenant_id;
