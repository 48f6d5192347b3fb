-- Which digests the log names, by tenant: a projection of it. What is in the artifact store and not in here, nor in a
-- command under way, is nobody's.
CREATE TABLE artifact_references (
    tenant_id text  NOT NULL,
    digest    bytea NOT NULL,
    PRIMARY KEY (tenant_id, digest)
);
ALTER TABLE artifact_references ENABLE ROW LEVEL SECURITY;
