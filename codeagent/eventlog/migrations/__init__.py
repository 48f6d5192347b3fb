"""The database's history, one file a version under `versions`."""

HEAD = "0053"
"""The newest version; a service is not ready on an older one."""
