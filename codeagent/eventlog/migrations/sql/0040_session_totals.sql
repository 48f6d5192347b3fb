-- What the runs of sessions have brought, folded from the log by the relay. A run's own row says whose its calls and
-- commands are, which they do not.
CREATE TABLE session_runs (
    run_id             text        NOT NULL,
    session_id         text        NOT NULL,
    tenant_id          text        NOT NULL,
    status             text        NOT NULL,
    last_active_at     timestamptz NOT NULL,
    calls              bigint      NOT NULL,
    cached_calls       bigint      NOT NULL,
    unpriced_calls     bigint      NOT NULL,
    input_tokens       bigint      NOT NULL,
    output_tokens      bigint      NOT NULL,
    cache_read_tokens  bigint      NOT NULL,
    cache_write_tokens bigint      NOT NULL,
    cost_usd           numeric     NOT NULL,
    sandbox_ms         bigint      NOT NULL,
    commands           bigint      NOT NULL,
    cpu_ms             bigint      NOT NULL,
    memory_mib_ms      bigint      NOT NULL,
    runs_submitted     bigint      NOT NULL,
    runs_completed     bigint      NOT NULL,
    runs_failed        bigint      NOT NULL,
    runs_canceled      bigint      NOT NULL,
    runs_rejected      bigint      NOT NULL,
    PRIMARY KEY (run_id)
);
CREATE INDEX session_runs_of_session ON session_runs (tenant_id, session_id);

-- The same, added up: what people see of a session is one row, however many runs it has.
CREATE TABLE session_totals (
    tenant_id          text        NOT NULL,
    session_id         text        NOT NULL,
    last_run_id        text,
    last_run_status    text,
    last_active_at     timestamptz NOT NULL,
    calls              bigint      NOT NULL,
    cached_calls       bigint      NOT NULL,
    unpriced_calls     bigint      NOT NULL,
    input_tokens       bigint      NOT NULL,
    output_tokens      bigint      NOT NULL,
    cache_read_tokens  bigint      NOT NULL,
    cache_write_tokens bigint      NOT NULL,
    cost_usd           numeric     NOT NULL,
    sandbox_ms         bigint      NOT NULL,
    commands           bigint      NOT NULL,
    cpu_ms             bigint      NOT NULL,
    memory_mib_ms      bigint      NOT NULL,
    runs_submitted     bigint      NOT NULL,
    runs_completed     bigint      NOT NULL,
    runs_failed        bigint      NOT NULL,
    runs_canceled      bigint      NOT NULL,
    runs_rejected      bigint      NOT NULL,
    PRIMARY KEY (tenant_id, session_id)
);

ALTER TABLE session_runs ENABLE ROW LEVEL SECURITY;
ALTER TABLE session_totals ENABLE ROW LEVEL SECURITY;
CREATE POLICY of_services ON session_runs TO codeagent_service USING (true);
CREATE POLICY of_services ON session_totals TO codeagent_service USING (true);
CREATE POLICY of_tenant ON session_totals FOR SELECT TO codeagent_edge USING (tenant_id = (SELECT current_tenant()));
GRANT SELECT, INSERT, UPDATE, DELETE ON session_runs, session_totals TO codeagent_service;
GRANT SELECT ON session_totals TO codeagent_edge;
