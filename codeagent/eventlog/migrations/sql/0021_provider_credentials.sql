-- Keys of model providers, of the whole installation: no tenant's. `version` counts the changes of a row; its facts are on
-- `provider-<name>`. The edge writes keys and cannot read them.
CREATE TABLE provider_credentials (
    id            text        PRIMARY KEY,
    provider      text        NOT NULL,
    version       bigint      NOT NULL,
    label         text        NOT NULL,
    fingerprint   text        NOT NULL,
    created_by    text        NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    revoked_at    timestamptz,
    last_used_at  timestamptz,
    secret_sealed bytea,
    CHECK ((revoked_at IS NULL) = (secret_sealed IS NOT NULL))
);
CREATE INDEX provider_credentials_newest ON provider_credentials (provider, created_at DESC, id DESC);
GRANT SELECT (id, provider, version, label, fingerprint, created_by, created_at, revoked_at, last_used_at)
    ON provider_credentials TO codeagent_edge;
GRANT INSERT (id, provider, version, label, fingerprint, created_by, secret_sealed)
    ON provider_credentials TO codeagent_edge;
GRANT UPDATE (version, revoked_at) ON provider_credentials TO codeagent_edge;

-- Whoever revokes a key forgets it, and it does not come back.
CREATE FUNCTION forget_revoked_credential() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.revoked_at IS NOT NULL THEN
        NEW.revoked_at := OLD.revoked_at;
    END IF;
    IF NEW.revoked_at IS NOT NULL THEN
        NEW.secret_sealed := NULL;
    END IF;
    RETURN NEW;
END $$;
REVOKE EXECUTE ON FUNCTION forget_revoked_credential FROM PUBLIC;
CREATE TRIGGER forget_revoked BEFORE UPDATE ON provider_credentials
    FOR EACH ROW EXECUTE FUNCTION forget_revoked_credential();
