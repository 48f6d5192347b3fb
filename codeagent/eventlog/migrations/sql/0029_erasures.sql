-- What is erased of a subject, step by step: whoever goes on with it finds here how far it has come. A row stays: it is
-- what tells a key that was shredded on purpose from one that was lost.
CREATE TABLE erasures (
    id             text        PRIMARY KEY,
    tenant_id      text        NOT NULL,
    subject_id     text        NOT NULL,
    key_id         text,
    begun_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    closed_at      timestamptz,
    shredded_at    timestamptz,
    completed_at   timestamptz,
    runs           text[]      NOT NULL DEFAULT '{}',
    counts         jsonb       NOT NULL DEFAULT '{}',
    certificate    text        NOT NULL DEFAULT '',
    UNIQUE (tenant_id, subject_id),
    CHECK (shredded_at IS NULL OR closed_at IS NOT NULL),
    CHECK (completed_at IS NULL OR closed_at IS NOT NULL)
);
CREATE INDEX erasures_at_work ON erasures (begun_at) WHERE completed_at IS NULL;
ALTER TABLE erasures ENABLE ROW LEVEL SECURITY;
CREATE POLICY of_tenant ON erasures TO codeagent_edge
    USING (tenant_id = (SELECT current_tenant())) WITH CHECK (tenant_id = (SELECT current_tenant()));
CREATE POLICY of_services ON erasures TO codeagent_service USING (true);
GRANT SELECT, INSERT (id, tenant_id, subject_id) ON erasures TO codeagent_edge;
GRANT SELECT, UPDATE (key_id, closed_at, shredded_at, completed_at, runs, counts, certificate)
    ON erasures TO codeagent_service;

-- Takes sealed content out of at most so many events: of a subject whose key is shredded, and of nobody else. Services
-- cannot change events otherwise.
CREATE FUNCTION erase_sealed_v1(p_erasure text, p_most integer) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_key text;
    v_rows bigint;
BEGIN
    -- The key is that of the row's subject, whatever the row says; and the log itself has to say that it is gone.
    SELECT 'sk_' || left(encode(sha256(convert_to(x.tenant_id, 'UTF8') || '\x00'::bytea
                                       || convert_to(x.subject_id, 'UTF8')), 'hex'), 32) INTO v_key
    FROM erasures x
    WHERE x.id = p_erasure AND x.shredded_at IS NOT NULL AND EXISTS (
        SELECT FROM events e WHERE e.stream_id = 'erasure-' || x.id AND e.tenant_id = x.tenant_id
            AND e.event_type = 'privacy.subject.erased');
    IF v_key IS NULL THEN
        RAISE insufficient_privilege USING MESSAGE = 'no erasure that has come so far';
    END IF;
    UPDATE events SET sealed = NULL WHERE global_position IN (
        SELECT global_position FROM events WHERE key_id = v_key AND sealed IS NOT NULL
        ORDER BY global_position LIMIT p_most);
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    RETURN v_rows;
END $$;
REVOKE ALL ON FUNCTION erase_sealed_v1 FROM PUBLIC;
GRANT EXECUTE ON FUNCTION erase_sealed_v1 TO codeagent_service;
