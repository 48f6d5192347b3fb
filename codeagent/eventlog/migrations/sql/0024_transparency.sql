-- The Merkle log over the events. Of the whole installation: no tenant's. It only grows, and the triggers below keep
-- whoever owns the tables from changing it by mistake; one who means to is found by `codeagent audit verify`.

-- Which event is entry number so and so. Positions have gaps, entries have none. The event's id is kept so that one
-- that is gone, or stands elsewhere, can be named.
CREATE TABLE audit_leaves (
    leaf_index      bigint PRIMARY KEY CHECK (leaf_index >= 0),
    global_position bigint NOT NULL UNIQUE,
    event_id        uuid   NOT NULL
);

-- The hashes of the tree (c2sp.org/tlog-tiles): 32 bytes each, 256 a tile. The last tile of a level grows.
CREATE TABLE audit_tiles (
    level      smallint NOT NULL CHECK (level BETWEEN 0 AND 7),
    tile_index bigint   NOT NULL CHECK (tile_index >= 0),
    hashes     bytea    NOT NULL CHECK (octet_length(hashes) BETWEEN 32 AND 8192 AND octet_length(hashes) % 32 = 0),
    PRIMARY KEY (level, tile_index)
);
-- Hashes do not compress.
ALTER TABLE audit_tiles ALTER COLUMN hashes SET STORAGE EXTERNAL;

-- Signed checkpoints (c2sp.org/tlog-checkpoint), numbered without gaps, each with the place in the log of the last
-- event that it covers.
CREATE TABLE audit_checkpoints (
    number          bigint      PRIMARY KEY CHECK (number > 0),
    tree_size       bigint      NOT NULL UNIQUE CHECK (tree_size > 0),
    root            bytea       NOT NULL CHECK (octet_length(root) = 32),
    note            text        NOT NULL,
    transaction_id  xid8        NOT NULL,
    global_position bigint      NOT NULL,
    sealed_at       timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Public halves of the keys that sign: for whoever asks, not for whoever verifies, who has them from elsewhere.
CREATE TABLE audit_keys (
    verifier_key text        PRIMARY KEY,
    used_since   timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Up to which size checkpoints have left the database, by where they went.
CREATE TABLE audit_anchors (
    target      text        PRIMARY KEY,
    tree_size   bigint      NOT NULL,
    anchored_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE FUNCTION refuse_audit_change() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    RAISE insufficient_privilege USING MESSAGE = format('%s only grows', TG_TABLE_NAME);
END $$;
CREATE FUNCTION hold_audit_hashes() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    IF (NEW.level, NEW.tile_index) IS DISTINCT FROM (OLD.level, OLD.tile_index)
       OR substring(NEW.hashes FROM 1 FOR octet_length(OLD.hashes)) IS DISTINCT FROM OLD.hashes THEN
        RAISE insufficient_privilege USING MESSAGE = 'tiles only grow';
    END IF;
    RETURN NEW;
END $$;
REVOKE EXECUTE ON FUNCTION refuse_audit_change, hold_audit_hashes FROM PUBLIC;
CREATE TRIGGER only_grows BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_leaves
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_change();
CREATE TRIGGER only_grows BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_checkpoints
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_change();
CREATE TRIGGER only_grows BEFORE DELETE OR TRUNCATE ON audit_tiles
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_change();
CREATE TRIGGER hashes_stay BEFORE UPDATE ON audit_tiles FOR EACH ROW EXECUTE FUNCTION hold_audit_hashes();

-- Nothing of it tells what an event says or whose it is, but which events were sealed: the edge asks for a tenant's
-- own by joining the events, which row-level security keeps to that tenant.
GRANT SELECT ON audit_leaves, audit_tiles, audit_checkpoints, audit_keys, audit_anchors TO codeagent_edge;
