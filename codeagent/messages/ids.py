"""Public identifiers: a typed prefix and a UUID in 26 characters of Crockford base32, as in
`run_01jd8x3v5ze7rvn0w2q7m4c9ta`."""

from __future__ import annotations

from uuid import UUID

from uuid_utils.compat import uuid5

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_VALUES = {character: value for value, character in enumerate(_ALPHABET)}
_LENGTH = 26
INSTALLATION = "installation"
"""Stands for the tenant of facts that belong to none."""
_NAMESPACE = UUID("6f6c9a5e-9c0e-5d0b-8a4d-2a6f0f6f3c11")


def typed_id(prefix: str, value: UUID) -> str:
    """`typed_id("run", uuid)` is `run_` and the 26 characters of the UUID's 128 bits."""
    number = value.int
    characters = [_ALPHABET[(number >> shift) & 31] for shift in range(125, -1, -5)]
    return f"{prefix}_{''.join(characters)}"


def parse_typed_id(prefix: str, text: str) -> UUID | None:
    """The UUID behind a typed id, or None when `text` is not one with that prefix."""
    head, _, tail = text.partition("_")
    if head != prefix or len(tail) != _LENGTH or tail[0] > "7":
        return None
    number = 0
    for character in tail:
        value = _VALUES.get(character)
        if value is None:
            return None
        number = number << 5 | value
    return UUID(int=number)


def derived_uuid(*parts: str) -> UUID:
    """A UUID that the same parts always yield: ids of what must not happen twice are derived, not drawn."""
    return uuid5(_NAMESPACE, "\x1f".join(parts))


def run_stream(run_id: str) -> str:
    return f"run-{run_id}"


def webhook_stream(webhook_id: str) -> str:
    return f"webhook-{webhook_id}"


def call_stream(effect_id: UUID) -> str:
    return f"call-{effect_id}"


def exec_stream(effect_id: UUID) -> str:
    return f"exec-{effect_id}"


def mcp_stream(effect_id: UUID) -> str:
    return f"mcp-{effect_id}"


def api_key_stream(key_id: str) -> str:
    return f"api_key-{key_id}"


def agent_stream(agent_id: str) -> str:
    return f"agent-{agent_id}"


def project_stream(project_id: str) -> str:
    return f"project-{project_id}"


def session_stream(session_id: str) -> str:
    return f"session-{session_id}"


def tenant_stream(tenant_id: str) -> str:
    return f"tenant-{tenant_id}"


def user_stream(user_id: str) -> str:
    return f"user-{user_id}"


def service_account_stream(service_account_id: str) -> str:
    return f"service_account-{service_account_id}"


def access_stream(refusal_id: str) -> str:
    return f"access-{refusal_id}"


def audit_stream(read_id: str) -> str:
    return f"audit-{read_id}"


def privacy_stream(request_id: str) -> str:
    return f"privacy-{request_id}"


def erasure_stream(request_id: str) -> str:
    return f"erasure-{request_id}"


def hold_stream(user_id: str) -> str:
    return f"hold-{user_id}"


def retention_stream(tenant_id: str) -> str:
    return f"retention-{tenant_id}"


def breach_stream(breach_id: str) -> str:
    return f"breach-{breach_id}"


def provider_stream(name: str) -> str:
    return f"provider-{name}"


def dead_letter_stream(letter_id: str) -> str:
    return f"dead_letter-{letter_id}"


def log_stream(act_id: str) -> str:
    return f"log-{act_id}"


def signing_stream(kid: str) -> str:
    return f"signing-{kid}"


def sandbox_quota_stream(tenant_id: str) -> str:
    return f"sandbox_quota-{tenant_id}"


def budget_stream(budget_id: str) -> str:
    return f"budget-{budget_id}"


def budget_notice_stream(budget_id: str) -> str:
    """What is told of a budget without changing it."""
    return f"budget_notices-{budget_id}"
