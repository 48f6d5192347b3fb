-- Of a command to a run: `event_id` is that of the command, which its facts name as their cause, and `actor_id` who sent
-- it, so that no other fact that the command led to is shown as coming from there, and an erasure finds it.
ALTER TABLE fact_origins ADD COLUMN actor_id text;
CREATE INDEX fact_origins_of_actor ON fact_origins (tenant_id, actor_id) WHERE actor_id IS NOT NULL;

CREATE FUNCTION note_origins_v1(p_commands uuid[], p_tenants text[], p_actors text[], p_addresses inet[]) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp SET synchronous_commit = off AS $$
    INSERT INTO fact_origins (event_id, tenant_id, actor_id, address)
    SELECT * FROM unnest(p_commands, p_tenants, p_actors, p_addresses) ON CONFLICT (event_id) DO NOTHING
$$;
REVOKE ALL ON FUNCTION note_origins_v1(uuid[], text[], text[], inet[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION note_origins_v1(uuid[], text[], text[], inet[]) TO codeagent_edge;
