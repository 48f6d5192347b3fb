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

-- Records an effect's outcome if its token still holds: the fact on the effect's own stream, the answer in the outbox.
-- `stale`: another owner has it. `gone`: the run ended without it; the fact is kept all the same, once.
CREATE FUNCTION record_outcome_v1(
    p_effect uuid, p_token uuid, p_stream text, p_tenant text,
    p_id uuid, p_type text, p_schema integer, p_data bytea, p_digest bytea, p_metadata jsonb, p_occurred timestamptz,
    p_leaf bytea, p_outbox uuid, p_topic text, p_key text, p_headers jsonb, p_value bytea
) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    verdict text := 'recorded';
BEGIN
    UPDATE effects SET recorded = true, due_at = 'infinity' WHERE id = p_effect AND token = p_token AND NOT recorded;
    IF NOT FOUND THEN
        IF EXISTS (SELECT 1 FROM effects WHERE id = p_effect) THEN
            RETURN 'stale';
        END IF;
        verdict := 'gone';
    END IF;
    INSERT INTO events (stream_id, stream_version, tenant_id, event_id, event_type, schema_version, data, data_digest,
                        metadata, occurred_at, leaf_hash)
    VALUES (p_stream, 1, p_tenant, p_id, p_type, p_schema, p_data, p_digest, p_metadata, p_occurred, p_leaf)
    ON CONFLICT (stream_id, stream_version) DO NOTHING;
    IF verdict = 'recorded' THEN
        INSERT INTO outbox (id, topic, key, tenant_id, headers, value, due_at)
        VALUES (p_outbox, p_topic, p_key, p_tenant, p_headers, p_value, clock_timestamp() + interval '2 seconds');
    END IF;
    RETURN verdict;
END $$;
