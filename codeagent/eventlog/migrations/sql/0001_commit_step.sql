-- Commits steps of many runs in one round trip and one transaction: facts, effects, what is settled, what was handled.
-- Returns the places (from 1) of those whose stream is not at the expected version; the others are committed.
-- The locks make the check of a head exact even when nothing is appended; they are taken in one order, so that two
-- batches never wait for each other. The unique key on (stream_id, stream_version) stands behind the check.
CREATE FUNCTION commit_steps_v1(
    p_streams text[], p_expected bigint[], p_counts integer[], p_tenants text[], p_runs text[],
    p_outbox uuid[], p_topics text[], p_correlations uuid[], p_causations uuid[], p_traceparents text[],
    p_handled uuid[], p_cancel boolean[], p_close boolean[],
    e_places integer[], e_versions bigint[], e_ids uuid[], e_types text[], e_schemas integer[], e_data bytea[],
    e_digests bytea[], e_metadata jsonb[], e_occurred timestamptz[], e_leaves bytea[],
    f_places integer[], f_ids uuid[], f_kinds text[], f_names text[], f_versions integer[], f_commands bytea[],
    f_due timestamptz[],
    s_places integer[], s_ids uuid[]
) RETURNS integer[]
LANGUAGE plpgsql AS $$
DECLARE
    refused integer[];
    stopping text[];
    run text;
BEGIN
    PERFORM pg_advisory_xact_lock(o.key)
    FROM (SELECT DISTINCT hashtextextended(s, 0) AS key FROM unnest(p_streams) s ORDER BY 1) o;

    SELECT coalesce(array_agg(s.place), '{}') INTO refused
    FROM unnest(p_streams, p_expected) WITH ORDINALITY AS s (stream, expected, place)
    WHERE s.expected <> coalesce((SELECT max(stream_version) FROM events WHERE stream_id = s.stream), 0);

    INSERT INTO events (stream_id, stream_version, tenant_id, event_id, event_type, schema_version,
                        data, data_digest, metadata, occurred_at, leaf_hash)
    SELECT p_streams[e.place], e.version, p_tenants[e.place], e.id, e.type, e.schema, e.data, e.digest, e.metadata,
           e.occurred, e.leaf
    FROM unnest(e_places, e_versions, e_ids, e_types, e_schemas, e_data, e_digests, e_metadata, e_occurred, e_leaves)
        AS e (place, version, id, type, schema, data, digest, metadata, occurred, leaf)
    WHERE e.place <> ALL (refused);

    INSERT INTO outbox (id, topic, key, tenant_id, stream_id, first_version, last_version, due_at)
    SELECT s.outbox, s.topic, s.run, s.tenant, s.stream, s.expected + 1, s.expected + s.count,
           clock_timestamp() + interval '2 seconds'
    FROM unnest(p_outbox, p_topics, p_runs, p_tenants, p_streams, p_expected, p_counts)
        WITH ORDINALITY AS s (outbox, topic, run, tenant, stream, expected, count, place)
    WHERE s.count > 0 AND s.place <> ALL (refused);

    DELETE FROM outbox o USING unnest(p_handled) WITH ORDINALITY AS h (id, place)
    WHERE o.id = h.id AND h.place <> ALL (refused);

    DELETE FROM effects f USING unnest(s_places, s_ids) AS s (place, id)
    WHERE f.id = s.id AND s.place <> ALL (refused);

    SELECT array_agg(s.run) INTO stopping FROM unnest(p_runs, p_cancel, p_close)
        WITH ORDINALITY AS s (run, cancel, close, place) WHERE (s.cancel OR s.close) AND s.place <> ALL (refused);
    IF stopping IS NOT NULL THEN
        PERFORM 1 FROM effects WHERE run_id = ANY (stopping) ORDER BY id FOR UPDATE;
        DELETE FROM effects f USING unnest(p_runs, p_close) WITH ORDINALITY AS s (run, close, place)
        WHERE f.run_id = s.run AND s.close AND s.place <> ALL (refused);
        UPDATE effects SET cancel_requested = true WHERE run_id = ANY (stopping) AND kind <> 'timer';
        FOREACH run IN ARRAY stopping LOOP
            PERFORM pg_notify('effects_canceled', run);
        END LOOP;
    END IF;

    INSERT INTO effects (id, kind, run_id, tenant_id, name, version, command, correlation_id, causation_id,
                         traceparent, due_at)
    SELECT f.id, f.kind, p_runs[f.place], p_tenants[f.place], f.name, f.version, f.command, p_correlations[f.place],
           p_causations[f.place], p_traceparents[f.place], coalesce(f.due, clock_timestamp() + interval '1 second')
    FROM unnest(f_places, f_ids, f_kinds, f_names, f_versions, f_commands, f_due)
        AS f (place, id, kind, name, version, command, due)
    WHERE f.place <> ALL (refused);
    RETURN refused;
END $$;
