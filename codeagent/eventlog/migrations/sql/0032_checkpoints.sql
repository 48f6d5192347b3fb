-- Checkpoints come each second that something is sealed. Of the old ones those stay that were taken out of the database,
-- and the last one of each hour: it covers whatever the others did. A row counts how many went right before it, so that
-- one that somebody else removes is still missed.
ALTER TABLE audit_checkpoints
    ADD COLUMN thinned bigint  NOT NULL DEFAULT 0 CHECK (thinned >= 0),
    ADD COLUMN kept    boolean NOT NULL DEFAULT false;
CREATE INDEX audit_checkpoints_thinnable ON audit_checkpoints (sealed_at) WHERE NOT kept;

CREATE FUNCTION hold_audit_checkpoints() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('codeagent.thinning', true) IS DISTINCT FROM 'on' THEN
        RAISE insufficient_privilege USING MESSAGE = 'checkpoints are thinned, and not removed';
    END IF;
    RETURN NULL;
END $$;
REVOKE EXECUTE ON FUNCTION hold_audit_checkpoints FROM PUBLIC;
DROP TRIGGER only_grows ON audit_checkpoints;
CREATE TRIGGER only_grows
    BEFORE UPDATE OF number, tree_size, root, note, transaction_id, global_position, sealed_at OR TRUNCATE
    ON audit_checkpoints FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_change();
CREATE TRIGGER only_thinned BEFORE DELETE ON audit_checkpoints
    FOR EACH STATEMENT EXECUTE FUNCTION hold_audit_checkpoints();

-- Looks at up to `most` checkpoints that are old, the oldest first, and at none twice: each goes, or is marked as kept.
-- Returns how many. The newest is never among them, whatever its age.
CREATE FUNCTION thin_checkpoints_v1(older_than interval, most integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    each   record;
    heir   bigint := 0; -- the checkpoint that comes after those that went
    gone   bigint := 0; -- how many went right before it
    looked integer := 0;
BEGIN
    IF NOT pg_try_advisory_xact_lock(1952999790) THEN
        RETURN 0; -- another relay is at it
    END IF;
    PERFORM set_config('codeagent.thinning', 'on', true);
    FOR each IN
        SELECT c.number, c.thinned, n.number AS following,
               date_trunc('hour', c.sealed_at, 'UTC') <> date_trunc('hour', n.sealed_at, 'UTC') AS is_last_of_hour
        FROM (SELECT * FROM audit_checkpoints
              WHERE NOT kept AND sealed_at < clock_timestamp() - greatest(older_than, interval '1 day')
                    AND number < (SELECT max(number) FROM audit_checkpoints)
              ORDER BY sealed_at LIMIT most) c
        CROSS JOIN LATERAL (SELECT number, sealed_at FROM audit_checkpoints
                            WHERE number > c.number ORDER BY number LIMIT 1) n
        ORDER BY c.number
    LOOP
        looked := looked + 1;
        IF each.number <> heir THEN
            UPDATE audit_checkpoints SET thinned = thinned + gone WHERE number = heir AND gone > 0;
            gone := 0;
        END IF;
        IF each.is_last_of_hour THEN
            UPDATE audit_checkpoints SET thinned = thinned + gone, kept = true WHERE number = each.number;
            gone := 0;
        ELSE
            DELETE FROM audit_checkpoints WHERE number = each.number;
            gone := gone + 1 + each.thinned;
        END IF;
        heir := each.following;
    END LOOP;
    UPDATE audit_checkpoints SET thinned = thinned + gone WHERE number = heir AND gone > 0;
    PERFORM set_config('codeagent.thinning', '', true);
    RETURN looked;
END $$;
REVOKE EXECUTE ON FUNCTION thin_checkpoints_v1 FROM PUBLIC;
GRANT EXECUTE ON FUNCTION thin_checkpoints_v1 TO codeagent_service;
GRANT UPDATE (kept) ON audit_checkpoints TO codeagent_service;
