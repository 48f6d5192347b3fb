"""Every message there is: (name, version) to class. Schemas, decoding and the topics' contents all come from here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json, to_json

from codeagent.errors import Unreadable
from codeagent.messages import (
    agent_events,
    audit_events,
    budget_events,
    calls,
    canary_events,
    commands,
    dead_letter_events,
    events,
    executions,
    identity_events,
    key_events,
    log_events,
    loop_events,
    mcp_calls,
    privacy_events,
    project_events,
    provider_events,
    quota_events,
    results,
    subagents,
    webhook_events,
)
from codeagent.messages.envelope import (
    SCHEMA_BASE,
    Event,
    Headers,
    Message,
    Payload,
    from_headers,
    from_structured,
)

COMMANDS: tuple[type[Payload], ...] = (
    commands.SubmitRun,
    commands.CancelRun,
    commands.AnswerApproval,
    commands.FireTimer,
    commands.GenerateReply,
    commands.ExecuteOperation,
    mcp_calls.CallMcpTool,
)
RUN_EVENTS: tuple[type[Event], ...] = (
    events.RunSubmitted,
    events.RunStarted,
    events.StepStarted,
    events.StepCompleted,
    events.MessageCompleted,
    calls.MessageFailed,
    events.ToolCallStarted,
    events.ToolCallCompleted,
    events.ToolCallFailed,
    events.ArtifactCreated,
    events.InputRequired,
    events.InputReceived,
    events.InputExpired,
    events.RunResumed,
    events.CancelRequested,
    events.RunVerified,
    loop_events.RunNudged,
    loop_events.RunCompacted,
    loop_events.RunGuidanceFound,
    subagents.SubagentStarted,
    subagents.SubagentCompleted,
    subagents.SubagentFailed,
    events.RunCompleted,
    events.RunFailed,
    events.RunCanceled,
    events.RunRejected,
)
EFFECT_EVENTS: tuple[type[Event], ...] = (
    calls.ModelSwitched,
    calls.CallEnded,
    executions.ExecStarted,
    events.ExecEnded,
    mcp_calls.McpCallEnded,
)
CONTROL_EVENTS: tuple[type[Event], ...] = (
    key_events.ApiKeyCreated,
    key_events.ApiKeyRotated,
    key_events.ApiKeyRevoked,
    identity_events.TenantCreated,
    identity_events.TenantSuspended,
    identity_events.TenantResumed,
    identity_events.UserCreated,
    identity_events.UserRoleChanged,
    identity_events.UserRemoved,
    identity_events.LoginSucceeded,
    identity_events.LoginFailed,
    identity_events.SessionsRevoked,
    identity_events.RefreshReuseDetected,
    identity_events.PasswordChanged,
    identity_events.PasswordReset,
    identity_events.ServiceAccountCreated,
    identity_events.ServiceAccountDisabled,
    identity_events.SigningKeyPublished,
    identity_events.SigningKeyRemoved,
    agent_events.AgentCreated,
    agent_events.AgentUpdated,
    agent_events.AgentArchived,
    agent_events.AgentVersionCreated,
    agent_events.AgentVersionPromoted,
    agent_events.AgentRolledBack,
    agent_events.AgentVersionRetired,
    canary_events.AgentCanaryStarted,
    canary_events.AgentCanaryStopped,
    canary_events.AgentCanaryRolledBack,
    webhook_events.WebhookCreated,
    webhook_events.WebhookUpdated,
    webhook_events.WebhookSecretRotated,
    webhook_events.WebhookTested,
    webhook_events.WebhookRedeliveryRequested,
    webhook_events.WebhookDisabled,
    webhook_events.WebhookDeleted,
    project_events.ProjectCreated,
    project_events.ProjectUpdated,
    project_events.ProjectArchived,
    project_events.ProjectUnarchived,
    project_events.GitCredentialSet,
    project_events.GitCredentialRemoved,
    project_events.SessionCreated,
    project_events.SessionRenamed,
    project_events.SessionClosed,
    audit_events.AuditRead,
    audit_events.AccessRefused,
    privacy_events.PrivacyRequestReceived,
    privacy_events.PrivacyRequestStarted,
    privacy_events.PrivacyRequestExtended,
    privacy_events.PrivacyRequestExported,
    privacy_events.PrivacyRequestLifted,
    privacy_events.PrivacyRequestCompleted,
    privacy_events.PrivacyRequestRejected,
    privacy_events.ProcessingRestricted,
    privacy_events.RestrictionLifted,
    privacy_events.UserErased,
    privacy_events.SubjectErased,
    privacy_events.ErasureCertified,
    privacy_events.HoldPlaced,
    privacy_events.HoldLifted,
    privacy_events.ContentRetired,
    privacy_events.BreachRecorded,
    privacy_events.BreachUpdated,
    budget_events.BudgetCreated,
    budget_events.BudgetChanged,
    budget_events.BudgetDeleted,
    budget_events.BudgetThresholdReached,
    quota_events.SandboxQuotaSet,
    provider_events.BreakerOpened,
    provider_events.BreakerHalfOpened,
    provider_events.BreakerClosed,
    provider_events.CredentialAdded,
    provider_events.CredentialRevoked,
    dead_letter_events.DeadLetterRead,
    dead_letter_events.DeadLetterRedriven,
    dead_letter_events.DeadLetterDiscarded,
    log_events.LogRestored,
)
RESULTS: tuple[type[Event], ...] = (
    results.ProviderResult,
    results.SandboxResult,
    mcp_calls.McpResult,
    subagents.SubagentResult,
)

Upcaster = Callable[[dict[str, Any]], dict[str, Any]]
UPCASTERS: dict[tuple[str, int], Upcaster] = {}
"""From one stored version to the next: ("run.started", 1) turns version 1 data into version 2 data. Pure functions, of
an object that need not be what the version says: whatever they raise of `_MISMATCHES` tells that it is not."""
_MISMATCHES = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError)


def _index(classes: Iterable[type[Payload]]) -> dict[str, type[Payload]]:
    return {payload.NAME: payload for payload in classes}


CURRENT: dict[str, type[Payload]] = _index((*COMMANDS, *RUN_EVENTS, *EFFECT_EVENTS, *CONTROL_EVENTS, *RESULTS))


def decode_data(name: str, version: int, value: bytes) -> Payload:
    """The payload in its current version. Older versions are lifted step by step; raises `Unreadable` otherwise."""
    payload = CURRENT.get(name)
    if payload is None:
        raise Unreadable(f"unknown message {name!r}", code="unknown_type")
    if version > payload.VERSION:
        raise Unreadable(f"{name} version {version} is newer than this program", code="unknown_version")
    try:
        if version == payload.VERSION:
            return payload.model_validate_json(value)
        document = from_json(value)
        if not isinstance(document, dict):
            raise TypeError("data is an object")
        for step in range(version, payload.VERSION):
            document = UPCASTERS[name, step](document)
        return payload.model_validate(document)
    except (ValidationError, *_MISMATCHES) as error:
        raise Unreadable(f"{name} version {version} does not match its schema", code="invalid_payload") from error


def decode(headers: Headers, value: bytes | None) -> Message:
    """A Kafka record as a message. Raises `Unreadable`; never anything else."""
    envelope = from_headers(headers)
    if value is None:
        raise Unreadable("record without a value", code="invalid_payload")
    return Message(envelope, decode_data(envelope.name, envelope.version, value))


def decode_structured(document: Mapping[str, Any]) -> Message:
    """An event as pages, streams and exports have it. Raises `Unreadable`; never anything else."""
    envelope = from_structured(document)
    return Message(envelope, decode_data(envelope.name, envelope.version, to_json(document.get("data"))))


def encode_data(payload: Payload) -> bytes:
    """The payload's JSON, as stored and sent: its digest is taken over exactly these bytes."""
    return payload.__pydantic_serializer__.to_json(payload)


def json_schema(payload: type[Payload]) -> dict[str, Any]:
    """JSON Schema 2020-12 of a payload, as committed under `schemas/`."""
    schema = payload.model_json_schema(mode="serialization")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"{SCHEMA_BASE}{payload.NAME}.v{payload.VERSION}.json",
        **schema,
    }
