-- Requests of persons about their data, and what became of them. `version` is that of the row's own stream.
CREATE TABLE privacy_requests (
    id            text        PRIMARY KEY,
    tenant_id     text        NOT NULL,
    version       bigint      NOT NULL,
    kind          text        NOT NULL,
    subject_id    text        NOT NULL,
    note          text        NOT NULL,
    status        text        NOT NULL CHECK (status IN ('received', 'in_progress', 'completed', 'rejected')),
    reason        text        NOT NULL DEFAULT '',
    extension     text        NOT NULL DEFAULT '',
    result        jsonb       NOT NULL DEFAULT '{}',
    fingerprint   text        NOT NULL,
    created_by    text        NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    due_at        timestamptz NOT NULL,
    ended_at      timestamptz,
    CHECK (due_at <= created_at + interval '3 months')
);
CREATE INDEX privacy_requests_of_tenant ON privacy_requests (tenant_id, created_at DESC, id DESC);
CREATE INDEX privacy_requests_of_subject ON privacy_requests (tenant_id, subject_id);

CREATE TABLE privacy_breaches (
    id                    text        PRIMARY KEY,
    tenant_id             text        NOT NULL,
    version               bigint      NOT NULL,
    summary               text        NOT NULL,
    measures              text        NOT NULL,
    categories            text[]      NOT NULL,
    subjects_affected     integer,
    discovered_at         timestamptz NOT NULL,
    notify_by             timestamptz NOT NULL,
    authority_notified_at timestamptz,
    subjects_notified_at  timestamptz,
    closed_at             timestamptz,
    fingerprint           text        NOT NULL,
    created_by            text        NOT NULL,
    created_at            timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX privacy_breaches_of_tenant ON privacy_breaches (tenant_id, created_at DESC, id DESC);

-- A restricted user is a disabled one: whatever asks for the one finds the other. The check keeps both together.
ALTER TABLE users ADD COLUMN restricted_at timestamptz, ADD COLUMN erased_at timestamptz,
    ADD CONSTRAINT users_shut_out CHECK (disabled_at IS NOT NULL OR (restricted_at IS NULL AND erased_at IS NULL));

ALTER TABLE privacy_requests ENABLE ROW LEVEL SECURITY;
ALTER TABLE privacy_breaches ENABLE ROW LEVEL SECURITY;
GRANT SELECT, INSERT, UPDATE ON privacy_requests, privacy_breaches TO codeagent_edge;
CREATE POLICY of_tenant ON privacy_requests TO codeagent_edge
    USING (tenant_id = (SELECT current_tenant())) WITH CHECK (tenant_id = (SELECT current_tenant()));
CREATE POLICY of_tenant ON privacy_breaches TO codeagent_edge
    USING (tenant_id = (SELECT current_tenant())) WITH CHECK (tenant_id = (SELECT current_tenant()));

-- Removes or overwrites whatever leads from a user's id to a person, and all that lets them in; returns how many rows
-- that were, by table. The edge may delete none of these rows by itself. Sessions and keys must have been revoked.
CREATE FUNCTION erase_identity_v1(p_user text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
DECLARE
    v_counts jsonb := '{}';
    v_rows bigint;
BEGIN
    PERFORM FROM users WHERE id = p_user AND tenant_id = current_tenant() FOR UPDATE;
    IF NOT FOUND THEN
        RAISE insufficient_privilege USING MESSAGE = 'no user of this tenant';
    END IF;
    DELETE FROM authorization_codes WHERE user_id = p_user;
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    v_counts := v_counts || jsonb_build_object('authorization_codes', v_rows);
    DELETE FROM refresh_tokens WHERE session_id IN (SELECT id FROM login_sessions WHERE user_id = p_user);
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    v_counts := v_counts || jsonb_build_object('refresh_tokens', v_rows);
    DELETE FROM login_sessions WHERE user_id = p_user;
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    v_counts := v_counts || jsonb_build_object('login_sessions', v_rows);
    DELETE FROM passwords WHERE user_id = p_user;
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    v_counts := v_counts || jsonb_build_object('passwords', v_rows);
    DELETE FROM stream_tickets WHERE tenant_id = current_tenant() AND principal ->> 'id' = p_user;
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    v_counts := v_counts || jsonb_build_object('stream_tickets', v_rows);
    -- A key's digest and hint are of a secret that they hold; nobody can show another with the new digest.
    UPDATE api_keys SET name = '', hint = '', networks = '{}',
                        digest = sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()))
    WHERE principal_id = p_user AND tenant_id = current_tenant();
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    v_counts := v_counts || jsonb_build_object('api_keys', v_rows);
    UPDATE sessions SET title = '' WHERE created_by = p_user AND tenant_id = current_tenant();
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    v_counts := v_counts || jsonb_build_object('sessions', v_rows);
    -- The audit may be a moment behind: what is young is looked up in the log itself.
    DELETE FROM fact_origins o WHERE o.tenant_id = current_tenant() AND (
        o.event_id IN (SELECT a.event_id FROM audit_events a
                       WHERE a.tenant_id = current_tenant() AND a.actor_id = p_user)
        OR (o.recorded_at > clock_timestamp() - interval '1 hour' AND EXISTS (
                SELECT FROM events e WHERE e.event_id = o.event_id AND e.metadata ->> 'authid' = p_user)));
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    v_counts := v_counts || jsonb_build_object('fact_origins', v_rows);
    UPDATE users SET email_digest = NULL, email_sealed = NULL, erased_at = clock_timestamp(),
                     disabled_at = coalesce(disabled_at, clock_timestamp())
    WHERE id = p_user;
    RETURN v_counts || '{"users": 1}';
END $$;
REVOKE ALL ON FUNCTION erase_identity_v1(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION erase_identity_v1(text) TO codeagent_edge;
