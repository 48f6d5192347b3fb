-- Of whom a dead letter is: the key that its content is sealed with, and who it says has written it, where that is no part
-- of the system. An order that no worker could take is in no stream, and is found by nothing else.
ALTER TABLE dead_letters ADD COLUMN key_id text, ADD COLUMN author_id text;
UPDATE dead_letters d SET author_id = (
    SELECT h.value ->> 'value' FROM jsonb_array_elements(d.headers) AS h (value)
    WHERE h.value ->> 'name' = 'ce_authid' LIMIT 1)
WHERE NOT d.headers @> '[{"name": "ce_authtype", "value": "system"}]';
CREATE INDEX dead_letters_of_key ON dead_letters (key_id) WHERE key_id IS NOT NULL;
CREATE INDEX dead_letters_of_author ON dead_letters (tenant_id, author_id) WHERE author_id IS NOT NULL;
