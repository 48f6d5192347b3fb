-- Until when the authority has to be told of the breach that is the next to be told of, whatever tenant has it; NULL where
-- there is none. Services read nothing else of breaches.
CREATE FUNCTION next_breach_v1() RETURNS timestamptz
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT min(notify_by) FROM privacy_breaches WHERE closed_at IS NULL AND authority_notified_at IS NULL
$$;
REVOKE ALL ON FUNCTION next_breach_v1 FROM PUBLIC;
GRANT EXECUTE ON FUNCTION next_breach_v1 TO codeagent_service;
