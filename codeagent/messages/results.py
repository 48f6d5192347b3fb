"""What effect workers answer to the agent worker, and the deltas that clients may see live and nobody may rely on."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, ClassVar, Literal
from uuid import UUID

from pydantic import Field

from codeagent.messages.conversation import AssistantMessage, Data, FinishReason, Usage
from codeagent.messages.envelope import Event
from codeagent.messages.guidance import Guidance
from codeagent.messages.loop_events import Compaction
from codeagent.messages.personal import CONTENT_DIGEST, CONTENT_REF, FILE_NAMES, Personal
from codeagent.messages.sandbox_limits import CommandUse
from codeagent.messages.values import Artifact, Digest, Outcome, absent


class ProviderResult(Event):
    """Answers `provider.generate`. `message` is set when the outcome is `done`, `compaction` where the model was told
    less than the run's stream says so far."""

    NAME: ClassVar[str] = "provider.result"

    effect_id: UUID
    run_id: str
    attempt: int
    outcome: Outcome
    message: AssistantMessage | None = None
    text_ref: Annotated[str | None, CONTENT_REF] = None
    finish_reason: FinishReason = FinishReason.STOP
    model: str = ""
    usage: Usage = Usage()
    cost_usd: Decimal | None = None
    error_reason: str = ""
    error: Annotated[str, Personal("the agent's work", "may repeat what the user wrote")] = ""
    compaction: Compaction | None = Field(default=None, exclude_if=absent)


class SandboxResult(Event):
    """Answers `sandbox.execute`. `checkpoint` names the files as they are after it; `used` is set where a command ran,
    `retryable` where nothing did, `dependencies` where they were installed or recalled; `restored` are the files whose
    changes a verification left out."""

    NAME: ClassVar[str] = "sandbox.result"

    effect_id: UUID
    run_id: str
    attempt: int
    outcome: Outcome
    output: Annotated[str, Personal("the agent's work", "may hold what is in the repository")] = ""
    output_ref: Annotated[str | None, CONTENT_REF] = None
    reason: str = ""
    exit_code: int | None = None
    base: Annotated[str | None, CONTENT_REF] = None
    checkpoint: Annotated[str, CONTENT_DIGEST] = ""
    patch: Artifact | None = None
    error_reason: str = ""
    error: Annotated[str, Personal("the agent's work", "may hold what is in the repository")] = ""
    duration_seconds: float = 0.0
    used: CommandUse | None = Field(default=None, exclude_if=absent)
    retryable: bool | None = Field(default=None, exclude_if=absent)
    restored: Annotated[tuple[str, ...] | None, FILE_NAMES] = Field(default=None, exclude_if=absent)
    dependencies: Digest | None = Field(default=None, exclude_if=absent)
    guidance: Guidance | None = Field(default=None, exclude_if=absent)


class Delta(Data):
    """A live fragment: a model's text or a command's output. Clients drop those of an attempt older than one seen."""

    name: Literal["message.delta", "tool.output.delta"]
    run_id: str
    effect_id: UUID
    attempt: int
    sequence: int
    stream: Literal["text", "stdout", "stderr"]
    text: str
