"""The database's history, one file a version under `versions`."""

HEAD = "0040"
"""The newest version; a service is not ready on an older one."""
