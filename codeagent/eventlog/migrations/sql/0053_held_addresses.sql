-- Of somebody who is removed while a legal hold keeps what is theirs the address stays, sealed; nothing is found by it, and
-- it may be used again.
ALTER TABLE users DROP CONSTRAINT users_check,
    ADD CONSTRAINT users_address CHECK (email_digest IS NULL OR email_sealed IS NOT NULL);
