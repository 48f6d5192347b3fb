"""What effect workers answer to the agent worker, and the deltas that clients may see live and nobody may rely on."""

from __future__ import annotations

from decimal import Decimal
from typing import ClassVar, Literal
from uuid import UUID

from pydantic import Field

from codeagent.messages.conversation import AssistantMessage, Data, FinishReason, Usage
from codeagent.messages.envelope import Event
from codeagent.messages.sandbox_limits import CommandUse
from codeagent.messages.values import Artifact, Outcome, absent


class ProviderResult(Event):
    """Answers `provider.generate`. `message` is set when the outcome is `done`."""

    NAME: ClassVar[str] = "provider.result"

    effect_id: UUID
    run_id: str
    attempt: int
    outcome: Outcome
    message: AssistantMessage | None = None
    text_ref: str | None = None
    finish_reason: FinishReason = FinishReason.STOP
    model: str = ""
    usage: Usage = Usage()
    cost_usd: Decimal | None = None
    error_reason: str = ""
    error: str = ""


class SandboxResult(Event):
    """Answers `sandbox.execute`. `checkpoint` names the files as they are after it; `used` is set where a command ran,
    `retryable` where nothing did; `restored` are the files whose changes a verification left out."""

    NAME: ClassVar[str] = "sandbox.result"

    effect_id: UUID
    run_id: str
    attempt: int
    outcome: Outcome
    output: str = ""
    output_ref: str | None = None
    reason: str = ""
    exit_code: int | None = None
    base: str | None = None
    checkpoint: str = ""
    patch: Artifact | None = None
    error_reason: str = ""
    error: str = ""
    duration_seconds: float = 0.0
    used: CommandUse | None = Field(default=None, exclude_if=absent)
    retryable: bool | None = Field(default=None, exclude_if=absent)
    restored: tuple[str, ...] | None = Field(default=None, exclude_if=absent)


class Delta(Data):
    """A live fragment: a model's text or a command's output. Clients drop those of an attempt older than one seen."""

    name: Literal["message.delta", "tool.output.delta"]
    run_id: str
    effect_id: UUID
    attempt: int
    sequence: int
    stream: Literal["text", "stdout", "stderr"]
    text: str
