-- Records outcomes of effects whose tokens still hold: what there is to say on the effect's own stream, one fact or
-- several, and the answer in the outbox. As `record_outcomes_v1` otherwise, which older processes go on calling.
-- `stale`: another owner has it. `gone`: the run ended without it; the facts are kept all the same, once: a stream that
-- has been written is the story of one attempt, and no other is mixed into it. The lock on the stream makes that exact
-- also where no row of the ledger is left to wait for; it comes first, as in `commit_steps_v1`.
CREATE FUNCTION record_outcomes_v2(
    p_effects uuid[], p_tokens uuid[], p_streams text[], p_tenants text[],
    p_outbox uuid[], p_topics text[], p_keys text[], p_headers jsonb[], p_values bytea[],
    e_places integer[], e_versions bigint[], e_ids uuid[], e_types text[], e_schemas integer[], e_data bytea[],
    e_digests bytea[], e_metadata jsonb[], e_occurred timestamptz[], e_leaves bytea[]
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
                                data_digest, metadata, occurred_at, leaf_hash)
            SELECT t.stream, e.version, t.tenant, e.id, e.type, e.schema, e.data, e.digest, e.metadata, e.occurred,
                   e.leaf
            FROM unnest(e_places, e_versions, e_ids, e_types, e_schemas, e_data, e_digests, e_metadata, e_occurred,
                        e_leaves)
                AS e (place, version, id, type, schema, data, digest, metadata, occurred, leaf)
            JOIN told t ON t.place = e.place
            ORDER BY e.place, e.version
        ), answers AS (
            INSERT INTO outbox (id, topic, key, tenant_id, headers, value, due_at)
            SELECT j.outbox, j.topic, j.key, j.tenant, j.headers, j.value, clock_timestamp() + interval '2 seconds'
            FROM judged j WHERE j.verdict = 'recorded'
        )
        SELECT j.place, j.verdict FROM judged j ORDER BY j.place;
END $$;
REVOKE EXECUTE ON FUNCTION record_outcomes_v2 FROM PUBLIC;
