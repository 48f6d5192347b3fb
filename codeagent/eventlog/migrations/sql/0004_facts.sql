-- Appends the fact of a changed row to that row's stream, in the transaction that changes it. The edge may write to
-- streams of its own tenant's control plane: those of runs and effects are the workers' alone.
CREATE FUNCTION append_fact_v1(
    p_stream text, p_version bigint, p_tenant text, p_id uuid, p_type text, p_schema integer, p_data bytea,
    p_digest bytea, p_metadata jsonb, p_occurred timestamptz, p_leaf bytea
) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
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
                        data, data_digest, metadata, occurred_at, leaf_hash)
    VALUES (p_stream, p_version, p_tenant, p_id, p_type, p_schema, p_data, p_digest, p_metadata, p_occurred, p_leaf);
END $$;

REVOKE ALL ON FUNCTION append_fact_v1(text, bigint, text, uuid, text, integer, bytea, bytea, jsonb, timestamptz, bytea)
    FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    append_fact_v1(text, bigint, text, uuid, text, integer, bytea, bytea, jsonb, timestamptz, bytea) TO codeagent_edge;
