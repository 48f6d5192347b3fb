"""What a credential may do: scopes on every route, and roles as named sets of them."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum


class Scope(StrEnum):
    """One permission, as it stands in tokens and API keys."""

    RUNS_READ = "runs:read"
    RUNS_WRITE = "runs:write"
    RUNS_CANCEL = "runs:cancel"
    PROJECTS_READ = "projects:read"
    PROJECTS_WRITE = "projects:write"
    AGENTS_READ = "agents:read"
    AGENTS_WRITE = "agents:write"
    PROVIDERS_READ = "providers:read"
    APPROVALS_WRITE = "approvals:write"
    WEBHOOKS_READ = "webhooks:read"
    WEBHOOKS_WRITE = "webhooks:write"
    KEYS_WRITE = "keys:write"
    MEMBERS_WRITE = "members:write"
    USAGE_READ = "usage:read"
    AUDIT_READ = "audit:read"
    PRIVACY_WRITE = "privacy:write"
    ADMIN = "admin"
    OPERATOR = "operator"
    """Of the installation, not of a tenant: a key in the operator's own file may have it, and nothing else."""


class Role(StrEnum):
    """What a user is in a tenant."""

    OWNER = "owner"
    ADMIN = "admin"
    DEVELOPER = "developer"
    VIEWER = "viewer"


ALL = frozenset(Scope) - {Scope.OPERATOR}
"""All that somebody of a tenant can be permitted."""
_BY_NAME = {scope.value: scope for scope in Scope}
_READS = frozenset({Scope.RUNS_READ, Scope.PROJECTS_READ, Scope.AGENTS_READ, Scope.PROVIDERS_READ, Scope.USAGE_READ})
_WORK = frozenset({Scope.RUNS_WRITE, Scope.RUNS_CANCEL, Scope.PROJECTS_WRITE, Scope.APPROVALS_WRITE})
# Not among what viewers read: the URL of a webhook often holds a token.
_WEBHOOKS = frozenset({Scope.WEBHOOKS_READ, Scope.WEBHOOKS_WRITE})

SCOPES_OF: dict[Role, frozenset[Scope]] = {
    Role.OWNER: ALL,
    Role.ADMIN: ALL - {Scope.PRIVACY_WRITE},
    Role.DEVELOPER: _READS | _WORK | _WEBHOOKS | {Scope.AGENTS_WRITE, Scope.KEYS_WRITE},
    Role.VIEWER: _READS,
}
"""A token or key never carries more than the role of its user at the moment it is used."""


def parse_scopes(text: str) -> frozenset[Scope]:
    """Scopes as OAuth writes them, separated by spaces. Raises `ValueError` for one that does not exist."""
    return frozenset(Scope(word) for word in text.split())


def known_scopes(names: Iterable[str]) -> frozenset[Scope]:
    """Scopes as they were stored. One that no longer exists permits nothing."""
    return frozenset(_BY_NAME[name] for name in names if name in _BY_NAME)


def format_scopes(scopes: frozenset[Scope]) -> str:
    return " ".join(sorted(scopes))
