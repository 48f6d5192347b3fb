-- Appends to one stream. The lock makes the check of the head exact even when nothing is appended;
-- the unique key on (stream_id, stream_version) stands behind it.
CREATE FUNCTION assert_head_v1(p_stream text, p_expected bigint) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    head bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended(p_stream, 0));
    SELECT coalesce(max(stream_version), 0) INTO head FROM events WHERE stream_id = p_stream;
    IF head <> p_expected THEN
        RAISE EXCEPTION 'stream % is at version %, expected %', p_stream, head, p_expected USING ERRCODE = 'CA001';
    END IF;
END $$;

CREATE FUNCTION append_events_v1(
    p_stream text, p_expected bigint, p_tenant text,
    p_ids uuid[], p_types text[], p_schemas integer[], p_data bytea[], p_digests bytea[],
    p_metadata jsonb[], p_occurred timestamptz[], p_leaves bytea[]
) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO events (stream_id, stream_version, tenant_id, event_id, event_type, schema_version,
                        data, data_digest, metadata, occurred_at, leaf_hash)
    SELECT p_stream, p_expected + e.ordinal, p_tenant, e.id, e.type, e.schema, e.data, e.digest, e.metadata, e.occurred, e.leaf
    FROM unnest(p_ids, p_types, p_schemas, p_data, p_digests, p_metadata, p_occurred, p_leaves)
        WITH ORDINALITY AS e (id, type, schema, data, digest, metadata, occurred, leaf, ordinal)
$$;

-- One step of a run: facts, effects, what is settled and what was handled, in one round trip and one commit.
CREATE FUNCTION commit_step_v1(
    p_stream text, p_expected bigint, p_tenant text,
    p_ids uuid[], p_types text[], p_schemas integer[], p_data bytea[], p_digests bytea[],
    p_metadata jsonb[], p_occurred timestamptz[], p_leaves bytea[],
    p_run text, p_outbox uuid, p_topic text, p_correlation uuid, p_causation uuid, p_traceparent text,
    p_effects uuid[], p_kinds text[], p_names text[], p_versions integer[], p_commands bytea[], p_due timestamptz[],
    p_settled uuid[], p_handled uuid, p_cancel boolean, p_close boolean
) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM assert_head_v1(p_stream, p_expected);
    IF cardinality(p_ids) > 0 THEN
        PERFORM append_events_v1(p_stream, p_expected, p_tenant, p_ids, p_types, p_schemas, p_data, p_digests,
                                 p_metadata, p_occurred, p_leaves);
        INSERT INTO outbox (id, topic, key, tenant_id, stream_id, first_version, last_version, due_at)
        VALUES (p_outbox, p_topic, p_run, p_tenant, p_stream, p_expected + 1, p_expected + cardinality(p_ids),
                clock_timestamp() + interval '2 seconds');
    END IF;
    IF p_handled IS NOT NULL THEN
        DELETE FROM outbox WHERE id = p_handled;
    END IF;
    IF p_close THEN
        DELETE FROM effects WHERE run_id = p_run;
    ELSIF cardinality(p_settled) > 0 THEN
        DELETE FROM effects WHERE id = ANY (p_settled);
    END IF;
    IF p_cancel OR p_close THEN
        UPDATE effects SET cancel_requested = true WHERE run_id = p_run AND kind <> 'timer';
        PERFORM pg_notify('effects_canceled', p_run);
    END IF;
    IF cardinality(p_effects) > 0 THEN
        INSERT INTO effects (id, kind, run_id, tenant_id, name, version, command, correlation_id, causation_id,
                             traceparent, due_at)
        SELECT f.id, f.kind, p_run, p_tenant, f.name, f.version, f.command, p_correlation, p_causation, p_traceparent,
               coalesce(f.due, clock_timestamp() + interval '1 second')
        FROM unnest(p_effects, p_kinds, p_names, p_versions, p_commands, p_due)
            AS f (id, kind, name, version, command, due);
    END IF;
END $$;
