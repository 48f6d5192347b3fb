-- What a tenant lets itself spend. `version` is that of the row's own stream, `budget-<id>`. `noticed_percent` is the
-- highest threshold told of in the period that began on `noticed_from`, `notices` the version of `budget_notices-<id>`.
CREATE TABLE budgets (
    id              text        PRIMARY KEY,
    tenant_id       text        NOT NULL,
    version         bigint      NOT NULL,
    name            text        NOT NULL,
    scope           text        NOT NULL CHECK (scope IN ('tenant', 'project', 'principal')),
    scope_id        text,
    period          text        NOT NULL CHECK (period IN ('day', 'month', 'total')),
    unit            text        NOT NULL CHECK (unit IN ('usd', 'tokens')),
    amount          numeric     NOT NULL CHECK (amount > 0),
    action          text        NOT NULL CHECK (action IN ('refuse', 'warn')),
    fingerprint     text        NOT NULL,
    noticed_from    date,
    noticed_percent integer     NOT NULL DEFAULT 0,
    notices         bigint      NOT NULL DEFAULT 0,
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK ((scope = 'tenant') = (scope_id IS NULL))
);
CREATE INDEX budgets_of_tenant ON budgets (tenant_id, created_at DESC, id DESC);

ALTER TABLE budgets ENABLE ROW LEVEL SECURITY;
GRANT SELECT, DELETE ON budgets TO codeagent_edge;
GRANT INSERT (id, tenant_id, version, name, scope, scope_id, period, unit, amount, action, fingerprint)
    ON budgets TO codeagent_edge;
GRANT UPDATE (version, name, amount, action, noticed_percent, updated_at) ON budgets TO codeagent_edge;
CREATE POLICY of_tenant ON budgets TO codeagent_edge
    USING (tenant_id = (SELECT current_tenant())) WITH CHECK (tenant_id = (SELECT current_tenant()));
