-- Whom a tenant wants told of its runs. `version` is that of the row's own stream, `webhook-<id>`; `exhausted` counts
-- deliveries given up since the last one that arrived. Events of transactions before `since` are none of its business:
-- it was not there yet, or was disabled.
CREATE TABLE webhooks (
    id              text COLLATE "C" PRIMARY KEY,
    tenant_id       text        NOT NULL,
    version         bigint      NOT NULL,
    url             text        NOT NULL,
    description     text        NOT NULL,
    event_types     text[]      NOT NULL,
    payload_format  text        NOT NULL,
    status          text        NOT NULL DEFAULT 'enabled' CHECK (status IN ('enabled', 'disabled')),
    disabled_reason text        NOT NULL DEFAULT '',
    secret          bytea       NOT NULL,
    previous_secret bytea,
    previous_until  timestamptz,
    fingerprint     text        NOT NULL,
    since           xid8        NOT NULL DEFAULT pg_current_xact_id(),
    exhausted       integer     NOT NULL DEFAULT 0,
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at      timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX webhooks_of_tenant ON webhooks (tenant_id, created_at DESC, id DESC);

-- One event for one webhook. `due_at` is when to try (again), or the end of the lease of the attempt that `token` is
-- making. `attempts` counts all of them, `step` those of the schedule, which began at `began_at` and which a redelivery
-- starts anew. The webhook may be gone: what is left of it is forgotten with time. What is sent is read from the log.
CREATE TABLE webhook_deliveries (
    id              text COLLATE "C" PRIMARY KEY,
    tenant_id       text        NOT NULL,
    webhook_id      text COLLATE "C" NOT NULL,
    event_id        uuid        NOT NULL,
    event_type      text        NOT NULL,
    stream_id       text        NOT NULL,
    stream_version  bigint      NOT NULL,
    state           text        NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'delivered', 'failed')),
    attempts        integer     NOT NULL DEFAULT 0,
    step            integer     NOT NULL DEFAULT 0,
    began_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    due_at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    token           uuid,
    last_status     integer,
    last_error      text,
    last_latency_ms integer,
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (webhook_id, event_id)
) WITH (fillfactor = 80);
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (webhook_id, due_at) WHERE state = 'pending';
CREATE INDEX webhook_deliveries_newest ON webhook_deliveries (webhook_id, id);
CREATE INDEX webhook_deliveries_failed ON webhook_deliveries (webhook_id, id) WHERE state = 'failed';
CREATE INDEX webhook_deliveries_age ON webhook_deliveries (created_at);

CREATE TABLE webhook_attempts (
    delivery_id text COLLATE "C" NOT NULL REFERENCES webhook_deliveries ON DELETE CASCADE,
    number      integer     NOT NULL,
    tenant_id   text        NOT NULL,
    ended_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    status      integer,
    error       text,
    latency_ms  integer,
    PRIMARY KEY (delivery_id, number)
);

-- Events from here on: there was nobody to tell of earlier ones.
INSERT INTO projections (name, transaction_id, global_position) VALUES ('webhooks', pg_current_xact_id(), 0);

ALTER TABLE webhooks ENABLE ROW LEVEL SECURITY;
ALTER TABLE webhook_deliveries ENABLE ROW LEVEL SECURITY;
ALTER TABLE webhook_attempts ENABLE ROW LEVEL SECURITY;
GRANT SELECT, INSERT, UPDATE, DELETE ON webhooks TO codeagent_edge;
GRANT SELECT, INSERT ON webhook_deliveries TO codeagent_edge;
GRANT UPDATE (state, step, began_at, due_at, updated_at) ON webhook_deliveries TO codeagent_edge;
GRANT SELECT ON webhook_attempts TO codeagent_edge;
CREATE POLICY of_tenant ON webhooks TO codeagent_edge USING (tenant_id = (SELECT current_tenant()));
CREATE POLICY of_tenant ON webhook_deliveries TO codeagent_edge USING (tenant_id = (SELECT current_tenant()));
CREATE POLICY of_tenant ON webhook_attempts FOR SELECT TO codeagent_edge USING (tenant_id = (SELECT current_tenant()));
