-- Who may come in, and with what. `version` is that of the row's own stream (`tenant-<id>`, `user-<id>`, ...).
CREATE TABLE tenants (
    id           text        PRIMARY KEY,
    version      bigint      NOT NULL,
    name         text        NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    suspended_at timestamptz
);

-- The digest finds a user by e-mail address, the sealed address can be shown to its owner. Erasure takes both.
CREATE TABLE users (
    id           text        PRIMARY KEY,
    tenant_id    text        NOT NULL REFERENCES tenants,
    version      bigint      NOT NULL,
    role         text        NOT NULL,
    email_digest bytea       UNIQUE,
    email_sealed bytea,
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    disabled_at  timestamptz,
    CHECK ((email_digest IS NULL) = (email_sealed IS NULL))
);
CREATE INDEX users_of_tenant ON users (tenant_id, id);

-- Apart from the users, so that whoever lists members cannot read hashes. `temporary_until`: given out by somebody
-- else, good for nothing but to choose one's own.
CREATE TABLE passwords (
    user_id         text        PRIMARY KEY REFERENCES users ON DELETE CASCADE,
    tenant_id       text        NOT NULL,
    hash            text        NOT NULL,
    changed_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    temporary_until timestamptz
);

-- A login on one client: the family of the refresh tokens that follow each other from it.
CREATE TABLE login_sessions (
    id             text        PRIMARY KEY,
    tenant_id      text        NOT NULL,
    user_id        text        NOT NULL REFERENCES users ON DELETE CASCADE,
    client_id      text        NOT NULL,
    scope          text        NOT NULL,
    network_digest bytea       NOT NULL,
    auth_time      timestamptz NOT NULL,
    created_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_used_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at     timestamptz NOT NULL,
    revoked_at     timestamptz,
    revoked_reason text
);
CREATE INDEX login_sessions_of_user ON login_sessions (user_id, id);
CREATE INDEX login_sessions_expiry ON login_sessions (expires_at);

-- `salt` is half of what the successor was derived from; the other half, the token itself, is known to its client only.
CREATE TABLE refresh_tokens (
    digest         bytea       PRIMARY KEY,
    tenant_id      text        NOT NULL,
    session_id     text        NOT NULL REFERENCES login_sessions ON DELETE CASCADE,
    created_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    used_at        timestamptz,
    salt           bytea,
    network_digest bytea,
    CHECK ((used_at IS NULL) = (salt IS NULL))
);
CREATE INDEX refresh_tokens_of_session ON refresh_tokens (session_id);
CREATE INDEX refresh_tokens_age ON refresh_tokens (used_at);

CREATE TABLE authorization_codes (
    digest         bytea       PRIMARY KEY,
    tenant_id      text        NOT NULL,
    user_id        text        NOT NULL REFERENCES users ON DELETE CASCADE,
    client_id      text        NOT NULL,
    scope          text        NOT NULL,
    code_challenge text        NOT NULL,
    auth_time      timestamptz NOT NULL,
    expires_at     timestamptz NOT NULL,
    session_id     text
);
CREATE INDEX authorization_codes_expiry ON authorization_codes (expires_at);

CREATE TABLE service_accounts (
    id            text        PRIMARY KEY,
    tenant_id     text        NOT NULL,
    version       bigint      NOT NULL,
    name          text        NOT NULL,
    scope         text        NOT NULL,
    secret_digest bytea       NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    disabled_at   timestamptz
);
CREATE INDEX service_accounts_of_tenant ON service_accounts (tenant_id, id);

-- Keys that sign access tokens. Which one signs follows from `active_from` and the time.
CREATE TABLE signing_keys (
    kid            text        PRIMARY KEY,
    algorithm      text        NOT NULL,
    public_key     text        NOT NULL,
    private_sealed bytea       NOT NULL,
    created_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    active_from    timestamptz NOT NULL
);

-- Random keys of the whole installation, sealed: they outlive the key-encryption keys.
CREATE TABLE instance_secrets (
    name   text  PRIMARY KEY,
    sealed bytea NOT NULL
);

-- Failed logins, counted by digests of accounts and addresses, also of those that do not exist.
CREATE TABLE login_throttles (
    key           bytea       PRIMARY KEY,
    failures      integer     NOT NULL,
    failed_at     timestamptz NOT NULL,
    blocked_until timestamptz NOT NULL
);
CREATE INDEX login_throttles_age ON login_throttles (failed_at);

ALTER TABLE tenants ENABLE ROW LEVEL SECURITY;
ALTER TABLE users ENABLE ROW LEVEL SECURITY;
ALTER TABLE passwords ENABLE ROW LEVEL SECURITY;
ALTER TABLE login_sessions ENABLE ROW LEVEL SECURITY;
ALTER TABLE refresh_tokens ENABLE ROW LEVEL SECURITY;
ALTER TABLE authorization_codes ENABLE ROW LEVEL SECURITY;
ALTER TABLE service_accounts ENABLE ROW LEVEL SECURITY;
ALTER TABLE signing_keys ENABLE ROW LEVEL SECURITY;
ALTER TABLE instance_secrets ENABLE ROW LEVEL SECURITY;
ALTER TABLE login_throttles ENABLE ROW LEVEL SECURITY;

GRANT SELECT ON tenants TO codeagent_edge;
GRANT SELECT, INSERT, UPDATE ON users, passwords, login_sessions, refresh_tokens, authorization_codes, service_accounts
    TO codeagent_edge;
GRANT SELECT, INSERT, DELETE ON signing_keys TO codeagent_edge;
CREATE POLICY of_tenant ON tenants FOR SELECT TO codeagent_edge USING (id = (SELECT current_tenant()));
CREATE POLICY of_tenant ON users TO codeagent_edge USING (tenant_id = (SELECT current_tenant()));
CREATE POLICY of_tenant ON passwords TO codeagent_edge USING (tenant_id = (SELECT current_tenant()));
CREATE POLICY of_tenant ON login_sessions TO codeagent_edge USING (tenant_id = (SELECT current_tenant()));
CREATE POLICY of_tenant ON refresh_tokens TO codeagent_edge USING (tenant_id = (SELECT current_tenant()));
CREATE POLICY of_tenant ON authorization_codes TO codeagent_edge USING (tenant_id = (SELECT current_tenant()));
CREATE POLICY of_tenant ON service_accounts TO codeagent_edge USING (tenant_id = (SELECT current_tenant()));
-- They sign for every tenant, and belong to none.
CREATE POLICY of_everyone ON signing_keys TO codeagent_edge USING (true);
