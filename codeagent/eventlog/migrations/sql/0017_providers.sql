-- How providers are, as each worker knows it, of the whole installation: no tenant's, and no secret.
CREATE TABLE provider_health (
    provider    text        NOT NULL,
    worker      text        NOT NULL,
    state       text        NOT NULL CHECK (state IN ('closed', 'half-open', 'open')),
    answered_at timestamptz,
    failed_at   timestamptz,
    reason      text        NOT NULL,
    seen_at     timestamptz NOT NULL,
    PRIMARY KEY (provider, worker)
);
GRANT SELECT ON provider_health TO codeagent_edge;
