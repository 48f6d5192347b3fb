-- What belongs to a person is sealed under a key of theirs, which is kept elsewhere (codeagent/subjects). `data` says
-- what can be read without it; `data_digest` is then that of `data` and `sealed_digest` together, so that `sealed` can be
-- taken away for good and every hash and proof still holds.
ALTER TABLE events ADD COLUMN sealed bytea, ADD COLUMN sealed_digest bytea,
    ADD CONSTRAINT events_sealed CHECK (
        (key_id IS NULL) = (sealed_digest IS NULL) AND (sealed IS NULL OR key_id IS NOT NULL)
        AND (sealed_digest IS NULL OR octet_length(sealed_digest) = 32)) NOT VALID;
ALTER TABLE events VALIDATE CONSTRAINT events_sealed;
CREATE INDEX events_of_key ON events (key_id, global_position) WHERE sealed IS NOT NULL;

-- The key of whoever a run belongs to: what its effects leave behind is sealed with it as well.
ALTER TABLE effects ADD COLUMN key_id text;

CREATE FUNCTION read_streams_v2(p_tenants text[], p_streams text[], p_after bigint[], p_most bigint[])
RETURNS TABLE (place bigint, global_position bigint, transaction_id text, stream_id text, stream_version bigint,
               event_id uuid, event_type text, schema_version integer, tenant_id text, key_id text, data bytea,
               data_digest bytea, sealed bytea, sealed_digest bytea, metadata jsonb, occurred_at timestamptz,
               leaf_hash bytea)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT w.place, e.global_position, e.transaction_id::text, e.stream_id, e.stream_version, e.event_id, e.event_type,
           e.schema_version, e.tenant_id, e.key_id, e.data, e.data_digest, e.sealed, e.sealed_digest, e.metadata,
           e.occurred_at, e.leaf_hash
    FROM unnest(p_tenants, p_streams, p_after, p_most) WITH ORDINALITY AS w (tenant, stream, after, most, place)
    CROSS JOIN LATERAL (
        SELECT * FROM events x
        WHERE x.stream_id = w.stream AND x.stream_version > w.after AND x.tenant_id = w.tenant
        ORDER BY x.stream_version LIMIT w.most) e
    ORDER BY w.place, e.stream_version
$$;

-- No table but the log holds what a person wrote for a run.
ALTER TABLE runs DROP COLUMN task;

-- Under whose key the facts are that name an artifact; '' for those that are not sealed.
ALTER TABLE artifact_references ADD COLUMN key_id text NOT NULL DEFAULT '';
ALTER TABLE artifact_references DROP CONSTRAINT artifact_references_pkey, ADD PRIMARY KEY (tenant_id, digest, key_id);
CREATE INDEX artifact_references_of_key ON artifact_references (key_id) WHERE key_id <> '';
