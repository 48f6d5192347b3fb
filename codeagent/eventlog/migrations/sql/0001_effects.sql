-- Claims the named effects under new tokens. What is claimed by another, recorded or gone is not returned.
CREATE FUNCTION claim_effects_v1(p_ids uuid[], p_tokens uuid[], p_owner text, p_lease interval, p_durable boolean)
RETURNS TABLE (id uuid, token uuid, attempt integer, cancel_requested boolean)
LANGUAGE plpgsql AS $$
BEGIN
    IF NOT p_durable THEN
        PERFORM set_config('synchronous_commit', 'off', true);
    END IF;
    RETURN QUERY
        UPDATE effects e SET token = c.token, attempt = e.attempt + 1, owner = p_owner, due_at = clock_timestamp() + p_lease
        FROM unnest(p_ids, p_tokens) AS c (id, token)
        WHERE e.id = c.id AND NOT e.recorded AND (e.token IS NULL OR e.due_at < clock_timestamp())
        RETURNING e.id, e.token, e.attempt, e.cancel_requested;
END $$;

-- Claims the oldest effects of a kind that nobody works on: those past due, and with p_fresh those just written.
CREATE FUNCTION claim_due_effects_v1(p_kind text, p_tokens uuid[], p_owner text, p_lease interval, p_fresh boolean)
RETURNS SETOF effects
LANGUAGE sql AS $$
    WITH due AS (
        SELECT e.id, row_number() OVER (ORDER BY e.due_at) AS place
        FROM (
            SELECT e.id, e.due_at FROM effects e
            WHERE e.kind = p_kind AND NOT e.recorded AND (e.due_at < clock_timestamp() OR (p_fresh AND e.token IS NULL))
            ORDER BY e.due_at LIMIT cardinality(p_tokens) FOR UPDATE SKIP LOCKED
        ) e
    )
    UPDATE effects e SET token = p_tokens[due.place], attempt = e.attempt + 1, owner = p_owner,
                         due_at = clock_timestamp() + p_lease
    FROM due WHERE e.id = due.id
    RETURNING e.*
$$;

-- Records outcomes of effects whose tokens still hold: the fact on the effect's own stream, the answer in the outbox.
-- `stale`: another owner has it. `gone`: the run ended without it; the fact is kept all the same, once.
CREATE FUNCTION record_outcomes_v1(
    p_effects uuid[], p_tokens uuid[], p_streams text[], p_tenants text[],
    p_ids uuid[], p_types text[], p_schemas integer[], p_data bytea[], p_digests bytea[], p_metadata jsonb[],
    p_occurred timestamptz[], p_leaves bytea[],
    p_outbox uuid[], p_topics text[], p_keys text[], p_headers jsonb[], p_values bytea[]
) RETURNS TABLE (place bigint, verdict text)
LANGUAGE plpgsql AS $$
BEGIN
    -- In one order, as everywhere: two batches never wait for each other.
    PERFORM 1 FROM effects e WHERE e.id = ANY (p_effects) ORDER BY e.id FOR UPDATE;
    RETURN QUERY
        WITH given AS (
            SELECT * FROM unnest(p_effects, p_tokens, p_streams, p_tenants, p_ids, p_types, p_schemas, p_data,
                                 p_digests, p_metadata, p_occurred, p_leaves, p_outbox, p_topics, p_keys, p_headers,
                                 p_values)
                WITH ORDINALITY AS g (effect, token, stream, tenant, id, type, schema, data, digest, metadata,
                                      occurred, leaf, outbox, topic, key, headers, value, place)
        ), held AS (
            UPDATE effects e SET recorded = true, due_at = 'infinity'
            FROM given g WHERE e.id = g.effect AND e.token = g.token AND NOT e.recorded
            RETURNING g.place
        ), judged AS (
            SELECT g.*, CASE WHEN h.place IS NOT NULL THEN 'recorded'
                             WHEN EXISTS (SELECT 1 FROM effects x WHERE x.id = g.effect) THEN 'stale'
                             ELSE 'gone' END AS verdict
            FROM given g LEFT JOIN held h ON h.place = g.place
        ), facts AS (
            INSERT INTO events (stream_id, stream_version, tenant_id, event_id, event_type, schema_version, data,
                                data_digest, metadata, occurred_at, leaf_hash)
            SELECT j.stream, 1, j.tenant, j.id, j.type, j.schema, j.data, j.digest, j.metadata, j.occurred, j.leaf
            FROM judged j WHERE j.verdict <> 'stale'
            ON CONFLICT (stream_id, stream_version) DO NOTHING
        ), answers AS (
            INSERT INTO outbox (id, topic, key, tenant_id, headers, value, due_at)
            SELECT j.outbox, j.topic, j.key, j.tenant, j.headers, j.value, clock_timestamp() + interval '2 seconds'
            FROM judged j WHERE j.verdict = 'recorded'
        )
        SELECT j.place, j.verdict FROM judged j ORDER BY j.place;
END $$;
