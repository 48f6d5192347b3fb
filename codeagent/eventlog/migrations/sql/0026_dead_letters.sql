-- Records that no consumer could handle, as the relay has found them in the dead-letter topics. They are the
-- installation's: `tenant_id` and `run_id` are what a record says of itself, and nobody vouches for it. `version` counts
-- the changes of a row; what operators do is told on `dead_letter-<id>`, readings included.
CREATE TABLE dead_letters (
    id              text        PRIMARY KEY,
    version         bigint      NOT NULL DEFAULT 1,
    state           text        NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'redriven', 'discarded')),
    topic           text        NOT NULL,
    consumer_group  text        NOT NULL,
    topic_partition integer,
    topic_offset    bigint,
    dlq_partition   integer     NOT NULL,
    dlq_offset      bigint      NOT NULL,
    record_key      text        NOT NULL,
    message_type    text,
    tenant_id       text,
    run_id          text,
    headers         jsonb       NOT NULL,
    headers_omitted integer     NOT NULL,
    value_bytes     integer     NOT NULL,
    error_type      text        NOT NULL,
    error_message   text        NOT NULL,
    attempts        integer,
    failed_at       timestamptz NOT NULL,
    received_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    redrives        integer     NOT NULL DEFAULT 0,
    settled_at      timestamptz,
    settled_by      text,
    reason          text        NOT NULL DEFAULT '',
    record_sealed   bytea,
    CHECK ((state = 'open') = (settled_at IS NULL)),
    CHECK (state <> 'discarded' OR record_sealed IS NULL)
);
CREATE INDEX dead_letters_newest ON dead_letters (received_at DESC, id DESC);
CREATE INDEX dead_letters_open ON dead_letters (received_at) WHERE state = 'open';

ALTER TABLE dead_letters ENABLE ROW LEVEL SECURITY;
CREATE POLICY of_installation ON dead_letters TO codeagent_edge
    USING ((SELECT current_tenant()) = 'installation') WITH CHECK ((SELECT current_tenant()) = 'installation');
GRANT SELECT ON dead_letters TO codeagent_edge;
GRANT UPDATE (version, state, headers, redrives, settled_at, settled_by, reason, record_sealed)
    ON dead_letters TO codeagent_edge;

-- Whoever discards a record forgets its content, and it does not come back.
CREATE FUNCTION forget_discarded_letter() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.state = 'discarded' THEN
        NEW.state := OLD.state;
    END IF;
    IF NEW.state = 'discarded' THEN
        NEW.record_sealed := NULL;
        NEW.headers := '[]';
    END IF;
    RETURN NEW;
END $$;
REVOKE EXECUTE ON FUNCTION forget_discarded_letter FROM PUBLIC;
CREATE TRIGGER forget_discarded BEFORE UPDATE ON dead_letters
    FOR EACH ROW EXECUTE FUNCTION forget_discarded_letter();

-- A record that is sent again goes once the broker has it: whether anybody can handle it is not known. Its headers are a
-- list of names and values in base64, since they are whatever came.
ALTER TABLE outbox ADD COLUMN goes_when_sent boolean NOT NULL DEFAULT false;
