-- What must be known before a tenant is. Each function takes a digest or an id that only its holder knows, and tells
-- no more than the next step needs.

CREATE FUNCTION find_login_v1(p_email bytea, p_network bytea)
RETURNS TABLE (user_id text, tenant_id text, hash text, expired boolean, known boolean, locked_out boolean)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public AS $$
    SELECT u.id, u.tenant_id, p.hash, coalesce(p.temporary_until < clock_timestamp(), false),
           EXISTS (SELECT FROM login_sessions s WHERE s.user_id = u.id AND s.network_digest = p_network
                   AND s.revoked_reason IS DISTINCT FROM 'refresh_reuse'),
           u.disabled_at IS NOT NULL OR t.suspended_at IS NOT NULL
    FROM users u JOIN tenants t ON t.id = u.tenant_id JOIN passwords p ON p.user_id = u.id
    WHERE u.email_digest = p_email
$$;

CREATE FUNCTION holder_of_refresh_token_v1(p_digest bytea) RETURNS TABLE (tenant_id text, user_id text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public AS $$
    SELECT s.tenant_id, s.user_id FROM refresh_tokens r JOIN login_sessions s ON s.id = r.session_id
    WHERE r.digest = p_digest
$$;

CREATE FUNCTION holder_of_code_v1(p_digest bytea) RETURNS TABLE (tenant_id text, user_id text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public AS $$
    SELECT c.tenant_id, c.user_id FROM authorization_codes c WHERE c.digest = p_digest
$$;

CREATE FUNCTION find_service_account_v1(p_id text)
RETURNS TABLE (tenant_id text, scope text, secret_digest bytea, locked_out boolean)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public AS $$
    SELECT a.tenant_id, a.scope, a.secret_digest, a.disabled_at IS NOT NULL OR t.suspended_at IS NOT NULL
    FROM service_accounts a JOIN tenants t ON t.id = a.tenant_id WHERE a.id = p_id
$$;

-- The secret under a name: the one that is there, else the one offered, which is there from now on.
CREATE FUNCTION instance_secret_v1(p_name text, p_offered bytea) RETURNS bytea
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
DECLARE
    found bytea;
BEGIN
    INSERT INTO instance_secrets (name, sealed) VALUES (p_name, p_offered) ON CONFLICT DO NOTHING;
    SELECT sealed INTO found FROM instance_secrets WHERE name = p_name;
    RETURN found;
END $$;

-- Counts an attempt to log in as failed until it turns out otherwise, so that guesses made at the same moment count as
-- well. Returns 0, or how many seconds to wait: then the attempt is refused and does not count. After `p_free` failures
-- each further one doubles the wait, from a second up to `p_most`; a day without failures clears a key.
CREATE FUNCTION begin_login_v1(p_keys bytea[], p_free integer[], p_most interval) RETURNS double precision
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
DECLARE
    wait double precision;
BEGIN
    INSERT INTO login_throttles (key, failures, failed_at, blocked_until)
    SELECT g.key, 0, clock_timestamp(), '-infinity' FROM unnest(p_keys) AS g (key) ORDER BY g.key
    ON CONFLICT DO NOTHING;
    -- In one order: two attempts never wait for each other.
    PERFORM 1 FROM login_throttles WHERE key = ANY (p_keys) ORDER BY key FOR UPDATE;
    SELECT max(extract(epoch FROM blocked_until - clock_timestamp())) INTO wait FROM login_throttles
    WHERE key = ANY (p_keys) AND blocked_until > clock_timestamp();
    IF wait IS NOT NULL THEN
        RETURN wait;
    END IF;
    UPDATE login_throttles t SET
        failures = n.failures, failed_at = clock_timestamp(),
        blocked_until = CASE WHEN n.failures > n.free
            THEN clock_timestamp() + least(p_most, interval '1 second' * 2 ^ least(n.failures - n.free - 1, 20))
            ELSE '-infinity' END
    FROM (
        SELECT g.key, g.free, 1 + CASE WHEN o.failed_at < clock_timestamp() - interval '1 day' THEN 0
                                       ELSE o.failures END AS failures
        FROM unnest(p_keys, p_free) AS g (key, free) JOIN login_throttles o ON o.key = g.key
    ) n WHERE t.key = n.key;
    RETURN 0;
END $$;

-- The attempt succeeded: its account starts anew, the others only take this attempt back, since whoever guesses other
-- people's passwords may know one of their own.
CREATE FUNCTION end_login_v1(p_account bytea, p_others bytea[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
BEGIN
    PERFORM 1 FROM login_throttles WHERE key = p_account OR key = ANY (p_others) ORDER BY key FOR UPDATE;
    DELETE FROM login_throttles WHERE key = p_account;
    UPDATE login_throttles SET failures = greatest(failures - 1, 0), blocked_until = '-infinity'
    WHERE key = ANY (p_others);
END $$;

-- Removes what nobody can use any more, at most `p_most` rows of each table. Used refresh tokens stay for as long as a
-- session may rest: until then one that comes again tells of a theft.
CREATE FUNCTION prune_logins_v1(p_idle interval, p_most integer) RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
    WITH codes AS (
        DELETE FROM authorization_codes WHERE digest IN (
            SELECT digest FROM authorization_codes WHERE expires_at < clock_timestamp() - interval '1 day'
            LIMIT p_most FOR UPDATE SKIP LOCKED)
        RETURNING 1
    ), throttles AS (
        DELETE FROM login_throttles WHERE key IN (
            SELECT key FROM login_throttles
            WHERE failed_at < clock_timestamp() - interval '1 day' AND blocked_until < clock_timestamp()
            LIMIT p_most FOR UPDATE SKIP LOCKED)
        RETURNING 1
    ), spent AS (
        DELETE FROM refresh_tokens WHERE digest IN (
            SELECT digest FROM refresh_tokens WHERE used_at < clock_timestamp() - p_idle
            LIMIT p_most FOR UPDATE SKIP LOCKED)
        RETURNING 1
    ), sessions AS (
        DELETE FROM login_sessions WHERE id IN (
            SELECT id FROM login_sessions WHERE expires_at < clock_timestamp() LIMIT p_most FOR UPDATE SKIP LOCKED)
        RETURNING 1
    )
    SELECT (SELECT count(*) FROM codes) + (SELECT count(*) FROM throttles) + (SELECT count(*) FROM spent)
        + (SELECT count(*) FROM sessions)
$$;

REVOKE ALL ON FUNCTION
    find_login_v1(bytea, bytea), holder_of_refresh_token_v1(bytea), holder_of_code_v1(bytea),
    find_service_account_v1(text), instance_secret_v1(text, bytea), begin_login_v1(bytea[], integer[], interval),
    end_login_v1(bytea, bytea[]), prune_logins_v1(interval, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    find_login_v1(bytea, bytea), holder_of_refresh_token_v1(bytea), holder_of_code_v1(bytea),
    find_service_account_v1(text), instance_secret_v1(text, bytea), begin_login_v1(bytea[], integer[], interval),
    end_login_v1(bytea, bytea[]) TO codeagent_edge;
