-- Whom the runs of an agent's version may hand work to. Versions from before hand nothing on.
ALTER TABLE agent_versions ADD COLUMN delegates text[] NOT NULL DEFAULT '{}';
GRANT INSERT (delegates) ON agent_versions TO codeagent_edge;

ALTER TABLE runs ADD COLUMN parent_run_id text;
CREATE INDEX runs_children ON runs (tenant_id, parent_run_id, created_at DESC, run_id DESC)
    WHERE parent_run_id IS NOT NULL;

-- As `commit_steps_v1`, with messages to other runs: rows of the outbox, which go when those runs have handled them. One
-- that is on its way already is not written twice. A run that is started here is known from now on, as one that a client
-- has submitted.
CREATE FUNCTION commit_steps_v2(
    p_streams text[], p_expected bigint[], p_counts integer[], p_tenants text[], p_runs text[],
    p_outbox uuid[], p_topics text[], p_correlations uuid[], p_causations uuid[], p_traceparents text[],
    p_handled uuid[], p_cancel boolean[], p_close boolean[],
    e_places integer[], e_versions bigint[], e_ids uuid[], e_types text[], e_schemas integer[], e_data bytea[],
    e_digests bytea[], e_metadata jsonb[], e_occurred timestamptz[], e_leaves bytea[],
    f_places integer[], f_ids uuid[], f_kinds text[], f_names text[], f_versions integer[], f_commands bytea[],
    f_due timestamptz[],
    s_places integer[], s_ids uuid[],
    m_places integer[], m_ids uuid[], m_topics text[], m_keys text[], m_headers jsonb[], m_values bytea[]
) RETURNS integer[]
LANGUAGE plpgsql AS $$
DECLARE
    refused integer[];
BEGIN
    refused := commit_steps_v1(
        p_streams, p_expected, p_counts, p_tenants, p_runs, p_outbox, p_topics, p_correlations, p_causations,
        p_traceparents, p_handled, p_cancel, p_close, e_places, e_versions, e_ids, e_types, e_schemas, e_data, e_digests,
        e_metadata, e_occurred, e_leaves, f_places, f_ids, f_kinds, f_names, f_versions, f_commands, f_due, s_places,
        s_ids);
    IF cardinality(m_ids) = 0 THEN
        RETURN refused;
    END IF;
    INSERT INTO outbox (id, topic, key, tenant_id, headers, value, due_at)
    SELECT m.id, m.topic, m.key, p_tenants[m.place], m.headers, m.value, clock_timestamp() + interval '2 seconds'
    FROM unnest(m_places, m_ids, m_topics, m_keys, m_headers, m_values) AS m (place, id, topic, key, headers, value)
    WHERE m.place <> ALL (refused) ORDER BY m.id
    ON CONFLICT (id) DO NOTHING;
    INSERT INTO submissions (run_id, tenant_id, fingerprint, request, accepted)
    SELECT m.key, p_tenants[m.place], m.request ->> 'fingerprint', m.request, true
    FROM (SELECT s.place, s.key, convert_from(s.value, 'UTF8')::jsonb AS request
          FROM unnest(m_places, m_keys, m_headers, m_values) AS s (place, key, headers, value)
          WHERE s.headers ->> 'ce_type' = 'io.codeagent.run.submit.v1' AND s.place <> ALL (refused)) m
    ON CONFLICT (run_id) DO NOTHING;
    RETURN refused;
END $$;

-- The workers' own.
REVOKE ALL ON FUNCTION commit_steps_v2 FROM PUBLIC;
