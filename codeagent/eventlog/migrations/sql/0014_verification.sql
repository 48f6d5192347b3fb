ALTER TABLE projects ADD COLUMN verification jsonb;
GRANT INSERT (verification), UPDATE (verification) ON projects TO codeagent_edge;
