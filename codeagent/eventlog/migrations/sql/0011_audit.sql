-- Where facts come from. A network address is personal data, and the log is never changed: it stands beside the log,
-- where it can be forgotten without touching a hash.
CREATE TABLE fact_origins (
    event_id    uuid        PRIMARY KEY,
    tenant_id   text        NOT NULL,
    address     inet        NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX fact_origins_age ON fact_origins (recorded_at);

-- Who did what to which thing: a projection of the log, without what the facts say beyond that.
CREATE TABLE audit_events (
    event_id      uuid        PRIMARY KEY,
    tenant_id     text        NOT NULL,
    occurred_at   timestamptz NOT NULL,
    actor_type    text        NOT NULL,
    actor_id      text        NOT NULL,
    action        text        NOT NULL,
    resource_kind text        NOT NULL,
    resource_id   text        NOT NULL,
    outcome       text        NOT NULL CHECK (outcome IN ('success', 'failure', 'denied'))
);
CREATE INDEX audit_events_newest ON audit_events (tenant_id, occurred_at DESC, event_id DESC);
CREATE INDEX audit_events_of_actor ON audit_events (tenant_id, actor_id, occurred_at DESC, event_id DESC);
CREATE INDEX audit_events_of_resource ON audit_events (tenant_id, resource_id, occurred_at DESC, event_id DESC);
CREATE INDEX audit_events_of_action ON audit_events (tenant_id, action, occurred_at DESC, event_id DESC);

ALTER TABLE fact_origins ENABLE ROW LEVEL SECURITY;
ALTER TABLE audit_events ENABLE ROW LEVEL SECURITY;
GRANT SELECT, INSERT (event_id, tenant_id, address) ON fact_origins TO codeagent_edge;
GRANT SELECT ON audit_events TO codeagent_edge;
CREATE POLICY of_tenant ON fact_origins TO codeagent_edge
    USING (tenant_id = (SELECT current_tenant())) WITH CHECK (tenant_id = (SELECT current_tenant()));
CREATE POLICY of_tenant ON audit_events FOR SELECT TO codeagent_edge USING (tenant_id = (SELECT current_tenant()));
