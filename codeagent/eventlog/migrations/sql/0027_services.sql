-- Workers, the relay and operators' commands work under a role of their own as well: it sees all tenants, reads events and
-- adds to them, and changes none. The owner of the tables migrates them, and does nothing else.
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'codeagent_service') THEN
        CREATE ROLE codeagent_service NOLOGIN;
    END IF;
EXCEPTION
    WHEN duplicate_object OR unique_violation THEN
        NULL; -- another database of this server is being migrated at the same moment
    WHEN insufficient_privilege THEN
        RAISE EXCEPTION 'role codeagent_service is missing: let an administrator run CREATE ROLE codeagent_service NOLOGIN';
END $$;
-- From PostgreSQL 16 on, whoever makes a role is a member that may not take it on until that is granted, too.
DO $$
DECLARE
    taken_on text := CASE WHEN current_setting('server_version_num')::integer < 160000 THEN 'MEMBER' ELSE 'SET' END;
    role text;
BEGIN
    FOREACH role IN ARRAY ARRAY['codeagent_edge', 'codeagent_service'] LOOP
        IF NOT pg_has_role(current_user, role, taken_on) THEN
            EXECUTE format('GRANT %I TO CURRENT_USER', role);
        END IF;
    END LOOP;
EXCEPTION
    WHEN insufficient_privilege THEN
        RAISE EXCEPTION 'role % is not ours to take on: let an administrator run GRANT % TO %', role, role, current_user;
END $$;

-- The log, which only grows, and its two ledgers.
GRANT SELECT, INSERT ON events TO codeagent_service;
GRANT SELECT, INSERT, UPDATE, DELETE ON effects, outbox TO codeagent_service;

-- Projections: kept, and made anew.
GRANT SELECT, INSERT, UPDATE ON projections TO codeagent_service;
GRANT SELECT, INSERT, UPDATE, DELETE ON runs, usage_runs, usage_by_run, usage_by_day, agent_runs, dependency_caches
    TO codeagent_service;
GRANT SELECT, INSERT, DELETE ON audit_events, artifact_references TO codeagent_service;
GRANT SELECT, INSERT, UPDATE, DELETE ON webhook_deliveries TO codeagent_service;
GRANT SELECT, INSERT, DELETE ON webhook_attempts TO codeagent_service;

-- What work reserves, and how workers find providers.
GRANT SELECT, INSERT, UPDATE, DELETE ON sandbox_reservations, call_reservations, provider_health TO codeagent_service;

-- The proof of the log, which only grows.
GRANT SELECT, INSERT ON audit_leaves, audit_checkpoints, audit_keys TO codeagent_service;
GRANT SELECT, INSERT, UPDATE ON audit_tiles, audit_anchors TO codeagent_service;

-- What workers keep for themselves, and what they could not handle.
GRANT SELECT, INSERT, UPDATE, DELETE ON response_cache, dead_letters TO codeagent_service;

-- What the relay forgets in time; whoever locks a row before that has to have the right to update it. A run that another
-- one starts is written down as submitted.
GRANT SELECT, INSERT, UPDATE, DELETE ON submissions TO codeagent_service;
GRANT SELECT, UPDATE, DELETE ON revocations TO codeagent_service;
GRANT SELECT, INSERT, UPDATE, DELETE ON fact_origins TO codeagent_service;

-- What the control plane says, and what the relay finds out about it.
GRANT SELECT ON agents, agent_versions, budgets, git_credentials, provider_credentials, sandbox_quotas, tenants, webhooks
    TO codeagent_service;
GRANT UPDATE (version, updated_at, canary, rolled_back) ON agents TO codeagent_service;
GRANT UPDATE (state) ON agent_versions TO codeagent_service;
GRANT UPDATE (noticed_from, noticed_percent, notices) ON budgets TO codeagent_service;
GRANT UPDATE (last_used_at) ON provider_credentials TO codeagent_service;
GRANT UPDATE (version, status, disabled_reason, exhausted, previous_secret, updated_at) ON webhooks TO codeagent_service;

-- What operators do: the first tenant and its owner, suspending tenants, and sealing everything under another key.
GRANT INSERT, UPDATE ON tenants TO codeagent_service;
GRANT INSERT ON users, passwords, revocations TO codeagent_service;
GRANT SELECT ON users, signing_keys, instance_secrets TO codeagent_service;
GRANT UPDATE (email_sealed) ON users TO codeagent_service;
GRANT UPDATE (private_sealed) ON signing_keys TO codeagent_service;
GRANT UPDATE (token_sealed) ON git_credentials TO codeagent_service;
GRANT UPDATE (sealed) ON instance_secrets TO codeagent_service;
GRANT UPDATE (secret_sealed) ON provider_credentials TO codeagent_service;
GRANT UPDATE (secret) ON webhooks TO codeagent_service;

GRANT EXECUTE ON FUNCTION current_tenant, is_submitted_v1, commit_steps_v1, commit_steps_v2, claim_effects_v2, claim_due_effects_v1,
    record_outcomes_v2, reserve_sandbox_v1, bound_sandboxes_v1, claim_sandboxes_v1, claim_due_sandboxes_v1,
    reserve_call_v1, append_fact_v1, prune_logins_v1, instance_secret_v1, lift_tenant_v1, projections_v1
    TO codeagent_service;

GRANT USAGE ON SCHEMA public TO codeagent_service;
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT SELECT ON alembic_version TO codeagent_service;

-- Row-level security lets it see every tenant, in the tables that it may see.
DO $$
DECLARE
    each regclass;
BEGIN
    FOR each IN SELECT oid FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND relrowsecurity
              AND has_any_column_privilege('codeagent_service', oid, 'SELECT, INSERT')
    LOOP
        EXECUTE format('CREATE POLICY of_services ON %s TO codeagent_service USING (true)', each);
    END LOOP;
END $$;

-- Projections are made anew in temporary tables.
DO $$ BEGIN
    EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO codeagent_service', current_database());
END $$;
-- A temporary table of the name of a real one must not be found by what runs with the owner's rights: where the path does
-- not say otherwise, it is found first.
DO $$
DECLARE
    each regprocedure;
BEGIN
    FOR each IN SELECT oid FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND prosecdef LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = pg_catalog, public, pg_temp', each);
    END LOOP;
END $$;
