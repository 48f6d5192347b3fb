-- What runs have used, folded from the log by the relay. A run's own row says whose use it is, which its calls and
-- commands do not, and what it may still spend while it is open.
CREATE TABLE usage_runs (
    run_id       text    PRIMARY KEY,
    tenant_id    text    NOT NULL,
    principal_id text    NOT NULL,
    project_id   text,
    session_id   text,
    model        text    NOT NULL,
    max_cost_usd numeric,
    cost_usd     numeric NOT NULL DEFAULT 0,
    open         boolean NOT NULL DEFAULT true
);
-- What is reserved: a look at the open runs of a tenant that have a limit of their own.
CREATE INDEX usage_runs_reserved ON usage_runs (tenant_id) WHERE open AND max_cost_usd IS NOT NULL;

CREATE TABLE usage_by_run (
    run_id             text    NOT NULL,
    day                date    NOT NULL,
    model              text    NOT NULL,
    tenant_id          text    NOT NULL,
    calls              bigint  NOT NULL DEFAULT 0,
    unpriced_calls     bigint  NOT NULL DEFAULT 0,
    input_tokens       bigint  NOT NULL DEFAULT 0,
    output_tokens      bigint  NOT NULL DEFAULT 0,
    cache_read_tokens  bigint  NOT NULL DEFAULT 0,
    cache_write_tokens bigint  NOT NULL DEFAULT 0,
    cost_usd           numeric NOT NULL DEFAULT 0,
    sandbox_ms         bigint  NOT NULL DEFAULT 0,
    runs_submitted     bigint  NOT NULL DEFAULT 0,
    runs_completed     bigint  NOT NULL DEFAULT 0,
    runs_failed        bigint  NOT NULL DEFAULT 0,
    runs_canceled      bigint  NOT NULL DEFAULT 0,
    runs_rejected      bigint  NOT NULL DEFAULT 0,
    PRIMARY KEY (run_id, day, model)
);
CREATE INDEX usage_by_run_of_tenant ON usage_by_run (tenant_id, day);

-- The same, added up: what reports and budgets read stays small however many runs a day has.
CREATE TABLE usage_by_day (
    tenant_id          text    NOT NULL,
    day                date    NOT NULL,
    model              text    NOT NULL,
    project_id         text,
    principal_id       text    NOT NULL,
    calls              bigint  NOT NULL DEFAULT 0,
    unpriced_calls     bigint  NOT NULL DEFAULT 0,
    input_tokens       bigint  NOT NULL DEFAULT 0,
    output_tokens      bigint  NOT NULL DEFAULT 0,
    cache_read_tokens  bigint  NOT NULL DEFAULT 0,
    cache_write_tokens bigint  NOT NULL DEFAULT 0,
    cost_usd           numeric NOT NULL DEFAULT 0,
    sandbox_ms         bigint  NOT NULL DEFAULT 0,
    runs_submitted     bigint  NOT NULL DEFAULT 0,
    runs_completed     bigint  NOT NULL DEFAULT 0,
    runs_failed        bigint  NOT NULL DEFAULT 0,
    runs_canceled      bigint  NOT NULL DEFAULT 0,
    runs_rejected      bigint  NOT NULL DEFAULT 0,
    CONSTRAINT usage_by_day_key UNIQUE NULLS NOT DISTINCT (tenant_id, day, model, project_id, principal_id)
);

ALTER TABLE usage_runs ENABLE ROW LEVEL SECURITY;
ALTER TABLE usage_by_run ENABLE ROW LEVEL SECURITY;
ALTER TABLE usage_by_day ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON usage_runs, usage_by_run, usage_by_day TO codeagent_edge;
CREATE POLICY of_tenant ON usage_runs FOR SELECT TO codeagent_edge USING (tenant_id = (SELECT current_tenant()));
CREATE POLICY of_tenant ON usage_by_run FOR SELECT TO codeagent_edge USING (tenant_id = (SELECT current_tenant()));
CREATE POLICY of_tenant ON usage_by_day FOR SELECT TO codeagent_edge USING (tenant_id = (SELECT current_tenant()));
