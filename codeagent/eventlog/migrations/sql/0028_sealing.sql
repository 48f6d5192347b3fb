-- As `commit_steps_v2`, with what is sealed: events say under which key, and so do the effects of a run (`p_keys`). A
-- message's `value` may be sealed as a whole; `m_fingerprints` then tells of a submission what its row has to.
CREATE FUNCTION commit_steps_v3(
    p_streams text[], p_expected bigint[], p_counts integer[], p_tenants text[], p_runs text[],
    p_outbox uuid[], p_topics text[], p_correlations uuid[], p_causations uuid[], p_traceparents text[],
    p_handled uuid[], p_cancel boolean[], p_close boolean[], p_keys text[],
    e_places integer[], e_versions bigint[], e_ids uuid[], e_types text[], e_schemas integer[], e_data bytea[],
    e_digests bytea[], e_metadata jsonb[], e_occurred timestamptz[], e_leaves bytea[],
    e_keys text[], e_sealed bytea[], e_sealed_digests bytea[],
    f_places integer[], f_ids uuid[], f_kinds text[], f_names text[], f_versions integer[], f_commands bytea[],
    f_due timestamptz[],
    s_places integer[], s_ids uuid[],
    m_places integer[], m_ids uuid[], m_topics text[], m_keys text[], m_headers jsonb[], m_values bytea[],
    m_requests jsonb[], m_fingerprints text[]
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
                        data, data_digest, metadata, occurred_at, leaf_hash, key_id, sealed, sealed_digest)
    SELECT p_streams[e.place], e.version, p_tenants[e.place], e.id, e.type, e.schema, e.data, e.digest, e.metadata,
           e.occurred, e.leaf, e.key, e.sealed, e.sealed_digest
    FROM unnest(e_places, e_versions, e_ids, e_types, e_schemas, e_data, e_digests, e_metadata, e_occurred, e_leaves,
                e_keys, e_sealed, e_sealed_digests)
        AS e (place, version, id, type, schema, data, digest, metadata, occurred, leaf, key, sealed, sealed_digest)
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
                         traceparent, due_at, key_id)
    SELECT f.id, f.kind, p_runs[f.place], p_tenants[f.place], f.name, f.version, f.command, p_correlations[f.place],
           p_causations[f.place], p_traceparents[f.place], coalesce(f.due, clock_timestamp() + interval '1 second'),
           p_keys[f.place]
    FROM unnest(f_places, f_ids, f_kinds, f_names, f_versions, f_commands, f_due)
        AS f (place, id, kind, name, version, command, due)
    WHERE f.place <> ALL (refused);
    IF cardinality(m_ids) = 0 THEN
        RETURN refused;
    END IF;
    INSERT INTO outbox (id, topic, key, tenant_id, headers, value, due_at)
    SELECT m.id, m.topic, m.key, p_tenants[m.place], m.headers, m.value, clock_timestamp() + interval '2 seconds'
    FROM unnest(m_places, m_ids, m_topics, m_keys, m_headers, m_values) AS m (place, id, topic, key, headers, value)
    WHERE m.place <> ALL (refused) ORDER BY m.id
    ON CONFLICT (id) DO NOTHING;
    INSERT INTO submissions (run_id, tenant_id, fingerprint, request, accepted)
    SELECT m.key, p_tenants[m.place], m.fingerprint, m.request, true
    FROM unnest(m_places, m_keys, m_requests, m_fingerprints) AS m (place, key, request, fingerprint)
    WHERE m.request IS NOT NULL AND m.place <> ALL (refused)
    ON CONFLICT (run_id) DO NOTHING;
    RETURN refused;
END $$;

-- As `record_outcomes_v2`, with what is sealed.
CREATE FUNCTION record_outcomes_v3(
    p_effects uuid[], p_tokens uuid[], p_streams text[], p_tenants text[],
    p_outbox uuid[], p_topics text[], p_keys text[], p_headers jsonb[], p_values bytea[],
    e_places integer[], e_versions bigint[], e_ids uuid[], e_types text[], e_schemas integer[], e_data bytea[],
    e_digests bytea[], e_metadata jsonb[], e_occurred timestamptz[], e_leaves bytea[],
    e_keys text[], e_sealed bytea[], e_sealed_digests bytea[]
) RETURNS TABLE (place bigint, verdict text)
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(o.key)
    FROM (SELECT DISTINCT hashtextextended(s, 0) AS key FROM unnest(p_streams) s ORDER BY 1) o;
    PERFORM 1 FROM effects e WHERE e.id = ANY (p_effects) ORDER BY e.id FOR UPDATE;
    RETURN QUERY
        WITH given AS (
            SELECT * FROM unnest(p_effects, p_tokens, p_streams, p_tenants, p_outbox, p_topics, p_keys, p_headers,
                                 p_values)
                WITH ORDINALITY AS g (effect, token, stream, tenant, outbox, topic, key, headers, value, place)
        ), held AS (
            UPDATE effects e SET recorded = true, due_at = 'infinity'
            FROM given g WHERE e.id = g.effect AND e.token = g.token AND NOT e.recorded
            RETURNING g.place
        ), judged AS (
            SELECT g.*, CASE WHEN h.place IS NOT NULL THEN 'recorded'
                             WHEN EXISTS (SELECT 1 FROM effects x WHERE x.id = g.effect) THEN 'stale'
                             ELSE 'gone' END AS verdict
            FROM given g LEFT JOIN held h ON h.place = g.place
        ), told AS (
            SELECT min(j.place) AS place, j.stream, j.tenant FROM judged j
            WHERE j.verdict <> 'stale' AND NOT EXISTS (SELECT 1 FROM events x WHERE x.stream_id = j.stream)
            GROUP BY j.stream, j.tenant
        ), facts AS (
            INSERT INTO events (stream_id, stream_version, tenant_id, event_id, event_type, schema_version, data,
                                data_digest, metadata, occurred_at, leaf_hash, key_id, sealed, sealed_digest)
            SELECT t.stream, e.version, t.tenant, e.id, e.type, e.schema, e.data, e.digest, e.metadata, e.occurred,
                   e.leaf, e.key, e.sealed, e.sealed_digest
            FROM unnest(e_places, e_versions, e_ids, e_types, e_schemas, e_data, e_digests, e_metadata, e_occurred,
                        e_leaves, e_keys, e_sealed, e_sealed_digests)
                AS e (place, version, id, type, schema, data, digest, metadata, occurred, leaf, key, sealed,
                      sealed_digest)
            JOIN told t ON t.place = e.place
            ORDER BY e.place, e.version
        ), answers AS (
            INSERT INTO outbox (id, topic, key, tenant_id, headers, value, due_at)
            SELECT j.outbox, j.topic, j.key, j.tenant, j.headers, j.value, clock_timestamp() + interval '2 seconds'
            FROM judged j WHERE j.verdict = 'recorded'
        )
        SELECT j.place, j.verdict FROM judged j ORDER BY j.place;
END $$;

-- Claims, with the key that what comes of them is sealed with.
CREATE FUNCTION claim_effects_v3(p_ids uuid[], p_tokens uuid[], p_owner text, p_lease interval, p_durable boolean)
RETURNS TABLE (id uuid, token uuid, attempt integer, cancel_requested boolean, memo bytea, key_id text)
LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY SELECT c.id, c.token, c.attempt, c.cancel_requested, c.memo, e.key_id
        FROM claim_effects_v2(p_ids, p_tokens, p_owner, p_lease, p_durable) c JOIN effects e ON e.id = c.id;
END $$;

CREATE FUNCTION claim_sandboxes_v2(p_ids uuid[], p_tokens uuid[], p_owner text, p_lease interval, p_default integer)
RETURNS TABLE (id uuid, token uuid, attempt integer, cancel_requested boolean, memo bytea, key_id text)
LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY SELECT c.id, c.token, c.attempt, c.cancel_requested, NULL::bytea, e.key_id
        FROM claim_sandboxes_v1(p_ids, p_tokens, p_owner, p_lease, p_default) c JOIN effects e ON e.id = c.id;
END $$;

-- As `append_fact_v1`, with what is sealed.
CREATE FUNCTION append_fact_v2(
    p_stream text, p_version bigint, p_tenant text, p_id uuid, p_type text, p_schema integer, p_data bytea,
    p_digest bytea, p_metadata jsonb, p_occurred timestamptz, p_leaf bytea, p_key text, p_sealed bytea,
    p_sealed_digest bytea
) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    IF p_tenant = '' OR p_tenant IS DISTINCT FROM current_tenant() OR p_stream ~ '^(run|call|exec)-' THEN
        RAISE insufficient_privilege USING MESSAGE = 'no stream of this tenant''s control plane';
    END IF;
    IF p_version > 1 AND NOT EXISTS (
        SELECT FROM events WHERE stream_id = p_stream AND stream_version = p_version - 1 AND tenant_id = p_tenant
    ) THEN
        RAISE serialization_failure USING MESSAGE = 'the stream is not at the version before';
    END IF;
    INSERT INTO events (stream_id, stream_version, tenant_id, event_id, event_type, schema_version,
                        data, data_digest, metadata, occurred_at, leaf_hash, key_id, sealed, sealed_digest)
    VALUES (p_stream, p_version, p_tenant, p_id, p_type, p_schema, p_data, p_digest, p_metadata, p_occurred, p_leaf,
            p_key, p_sealed, p_sealed_digest);
END $$;

REVOKE ALL ON FUNCTION read_streams_v2, commit_steps_v3, record_outcomes_v3, claim_effects_v3, claim_sandboxes_v2,
    append_fact_v2 FROM PUBLIC;
GRANT EXECUTE ON FUNCTION read_streams_v2, append_fact_v2 TO codeagent_edge;
GRANT EXECUTE ON FUNCTION commit_steps_v3, record_outcomes_v3, claim_effects_v3, claim_sandboxes_v2, append_fact_v2
    TO codeagent_service;
