-- Models that stand in for that of an agent's version, in their order. Versions from before have none.
ALTER TABLE agent_versions ADD COLUMN fallbacks text[] NOT NULL DEFAULT '{}';
GRANT INSERT (fallbacks) ON agent_versions TO codeagent_edge;

-- What the worker of a claim has noted for the next one, such as what its attempts have used. Its own to read.
ALTER TABLE effects ADD COLUMN memo bytea;

-- As claim_effects_v1, with the memo of the claim before.
CREATE FUNCTION claim_effects_v2(p_ids uuid[], p_tokens uuid[], p_owner text, p_lease interval, p_durable boolean)
RETURNS TABLE (id uuid, token uuid, attempt integer, cancel_requested boolean, memo bytea)
LANGUAGE plpgsql AS $$
BEGIN
    IF NOT p_durable THEN
        PERFORM set_config('synchronous_commit', 'off', true);
    END IF;
    RETURN QUERY
        UPDATE effects e SET token = c.token, attempt = e.attempt + 1, owner = p_owner, due_at = clock_timestamp() + p_lease
        FROM unnest(p_ids, p_tokens) AS c (id, token)
        WHERE e.id = c.id AND NOT e.recorded AND (e.token IS NULL OR e.due_at < clock_timestamp())
        RETURNING e.id, e.token, e.attempt, e.cancel_requested, e.memo;
END $$;
REVOKE EXECUTE ON FUNCTION claim_effects_v2 FROM PUBLIC;
