"""What a model is told and what it answers, in no vendor's words. Providers translate; agents decide on these."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from codeagent.messages.personal import CONTENT_REF, Personal


class Data(BaseModel):
    """Base of every frozen value that travels. Readers ignore fields they do not know. What does not fit is not quoted
    in the error, which ends up in logs: it may be what somebody wrote."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)


class ToolCall(Data):
    """One call a model asks for. `arguments` is the JSON text as the model wrote it, which may be malformed."""

    id: str
    name: str
    arguments: Annotated[str, Personal("the agent's work", "may hold what is in the repository", "{}")] = "{}"
    arguments_ref: Annotated[str | None, CONTENT_REF] = None
    """Digest of the artifact that holds the arguments when they are too long to travel inline."""


class SystemMessage(Data):
    role: Literal["system"] = "system"
    text: str


class UserMessage(Data):
    role: Literal["user"] = "user"
    text: str


class AssistantMessage(Data):
    role: Literal["assistant"] = "assistant"
    text: Annotated[str, Personal("the agent's work", "may repeat what the user wrote")] = ""
    tool_calls: tuple[ToolCall, ...] = ()


class ToolMessage(Data):
    """The answer to one tool call."""

    role: Literal["tool"] = "tool"
    tool_call_id: str
    name: str
    text: str
    is_error: bool = False


ChatMessage = Annotated[SystemMessage | UserMessage | AssistantMessage | ToolMessage, Field(discriminator="role")]


class ToolSpec(Data):
    """A tool as offered to a model. `parameters` is a JSON Schema of type object."""

    name: str
    description: str
    parameters: dict[str, Any]


class Usage(Data):
    """Tokens of one model call. `input_tokens` includes what was read from or written to the vendor's cache."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cache_read_tokens=self.cache_read_tokens + other.cache_read_tokens,
            cache_write_tokens=self.cache_write_tokens + other.cache_write_tokens,
        )


class FinishReason(StrEnum):
    """Why a model stopped. Unknown vendor values become `other`."""

    STOP = "stop"
    TOOL_CALLS = "tool_calls"
    LENGTH = "length"
    CONTENT_FILTER = "content_filter"
    OTHER = "other"
