-- What each run came to, folded from the log by the relay for the statistics of its agent's version.
CREATE TABLE agent_runs (
    run_id             text        PRIMARY KEY,
    tenant_id          text        NOT NULL,
    agent              text        NOT NULL,
    agent_version      integer     NOT NULL,
    rule               text,
    canary             bigint,
    submitted_at       timestamptz NOT NULL,
    outcome            text        NOT NULL
        CHECK (outcome IN ('open', 'succeeded', 'failed', 'canceled', 'excused')),
    waiting_since      timestamptz,
    waited_ms          bigint      NOT NULL,
    working_ms         bigint,
    steps              bigint      NOT NULL,
    calls              bigint      NOT NULL,
    unpriced_calls     bigint      NOT NULL,
    input_tokens       bigint      NOT NULL,
    output_tokens      bigint      NOT NULL,
    cost_usd           numeric     NOT NULL,
    tool_calls         bigint      NOT NULL,
    tool_failures      bigint      NOT NULL,
    approvals_asked    bigint      NOT NULL,
    approvals_rejected bigint      NOT NULL,
    approvals_expired  bigint      NOT NULL
);
CREATE INDEX agent_runs_of_agent ON agent_runs (tenant_id, agent, submitted_at);
CREATE INDEX agent_runs_of_canary ON agent_runs (tenant_id, agent, canary, submitted_at) WHERE canary IS NOT NULL;

ALTER TABLE agent_runs ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON agent_runs TO codeagent_edge;
CREATE POLICY of_tenant ON agent_runs FOR SELECT TO codeagent_edge USING (tenant_id = (SELECT current_tenant()));
