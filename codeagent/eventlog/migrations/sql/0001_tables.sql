CREATE TABLE events (
    global_position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    transaction_id  xid8        NOT NULL DEFAULT pg_current_xact_id(),
    stream_id       text        NOT NULL,
    stream_version  bigint      NOT NULL CHECK (stream_version > 0),
    event_id        uuid        NOT NULL UNIQUE,
    event_type      text        NOT NULL,
    schema_version  integer     NOT NULL,
    tenant_id       text        NOT NULL,
    subject_id      text,
    key_id          text,
    data            bytea,
    data_digest     bytea       NOT NULL CHECK (octet_length(data_digest) = 32),
    metadata        jsonb       NOT NULL,
    occurred_at     timestamptz NOT NULL,
    recorded_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    leaf_hash       bytea       NOT NULL CHECK (octet_length(leaf_hash) = 32),
    UNIQUE (stream_id, stream_version)
);
-- The cursor of cross-stream readers: a single number would lose transactions that commit late.
CREATE INDEX events_cursor ON events (transaction_id, global_position);
-- One query tells the story from the first command to the last system call.
CREATE INDEX events_correlation ON events ((metadata ->> 'correlationid'));

-- What has been asked for and not yet answered: outbox, lease and timer in one row.
CREATE TABLE effects (
    id               uuid        PRIMARY KEY,
    kind             text        NOT NULL,
    run_id           text        NOT NULL,
    tenant_id        text        NOT NULL,
    name             text        NOT NULL,
    version          integer     NOT NULL,
    command          bytea       NOT NULL,
    correlation_id   uuid        NOT NULL,
    causation_id     uuid        NOT NULL,
    traceparent      text,
    created_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    due_at           timestamptz NOT NULL,
    attempt          integer     NOT NULL DEFAULT 0,
    token            uuid,
    owner            text,
    cancel_requested boolean     NOT NULL DEFAULT false,
    recorded         boolean     NOT NULL DEFAULT false
) WITH (fillfactor = 70);
CREATE INDEX effects_run ON effects (run_id);
CREATE INDEX effects_due ON effects (kind, due_at) WHERE NOT recorded;

-- Messages on their way. A row without a value stands for events of a stream, which are read from the log.
CREATE TABLE outbox (
    id            uuid        PRIMARY KEY,
    topic         text        NOT NULL,
    key           text        NOT NULL,
    tenant_id     text        NOT NULL,
    headers       jsonb,
    value         bytea,
    stream_id     text,
    first_version bigint,
    last_version  bigint,
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    due_at        timestamptz NOT NULL,
    CHECK ((value IS NULL) = (stream_id IS NOT NULL))
) WITH (fillfactor = 70);
CREATE INDEX outbox_due ON outbox (due_at);

-- What the edge has answered 202 to, so that a run is known before its first event is.
CREATE TABLE submissions (
    run_id      text        PRIMARY KEY,
    tenant_id   text        NOT NULL,
    fingerprint text        NOT NULL,
    request     jsonb       NOT NULL,
    accepted    boolean     NOT NULL DEFAULT false,
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);
-- They go once they are old and their runs are in the log.
CREATE INDEX submissions_age ON submissions (created_at);

CREATE TABLE projections (
    name            text   PRIMARY KEY,
    transaction_id  xid8   NOT NULL,
    global_position bigint NOT NULL
);

CREATE TABLE runs (
    run_id        text        PRIMARY KEY,
    tenant_id     text        NOT NULL,
    version       bigint      NOT NULL,
    status        text        NOT NULL,
    status_reason text        NOT NULL DEFAULT '',
    task          text        NOT NULL DEFAULT '',
    agent         text        NOT NULL DEFAULT '',
    agent_version integer     NOT NULL DEFAULT 1,
    model         text        NOT NULL DEFAULT '',
    steps         integer     NOT NULL DEFAULT 0,
    input_tokens  bigint      NOT NULL DEFAULT 0,
    output_tokens bigint      NOT NULL DEFAULT 0,
    cost_usd      numeric     NOT NULL DEFAULT 0,
    created_at    timestamptz NOT NULL,
    updated_at    timestamptz NOT NULL
);
CREATE INDEX runs_newest ON runs (tenant_id, created_at DESC, run_id DESC);
