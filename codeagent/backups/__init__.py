"""Physical backups of the database: a base backup and the write-ahead log after it, and what comes back of them."""
