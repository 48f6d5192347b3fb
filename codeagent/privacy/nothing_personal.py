"""The tables without data of persons, beside the list of those with some (`personal_data`)."""

from __future__ import annotations

NOTHING_PERSONAL: dict[str, str] = {
    "alembic_version": "the schema's version",
    "projections": "places in the log",
    "tenants": "organisations",
    "refresh_tokens": "digests, reached through login_sessions and removed with them",
    "service_accounts": "programs",
    "signing_keys": "keys of the installation",
    "instance_secrets": "keys of the installation",
    "login_throttles": "keyed digests, gone in a day",
    "git_credentials": "secrets of projects, under names of accounts elsewhere",
    "placements": "which run belongs to which project and session",
    "usage_by_run": "figures of runs; whose they are is in usage_runs",
    "agent_runs": "figures of runs",
    "session_runs": "figures of runs of sessions",
    "session_totals": "figures of sessions",
    "provider_health": "how providers answer each worker",
    "webhooks": "addresses of programs of the tenant",
    "webhook_deliveries": "which event went to which program",
    "webhook_attempts": "how that went",
    "revocations": "ids of credentials, gone in a day",
    "audit_leaves": "which event is which entry of the log's proof",
    "audit_tiles": "hashes",
    "audit_checkpoints": "hashes, signed",
    "audit_keys": "public keys of the installation",
    "audit_anchors": "how much of the log is proven elsewhere",
    "artifact_references": "which artifacts the log names",
    "dependency_caches": "which artifacts hold what a tenant has installed",
    "retention_policy": "how long the content of runs is kept",
    "sandbox_quotas": "what tenants may use",
    "sandbox_reservations": "what commands under way may use",
}
"""Tables without data of persons, and what is in them."""
