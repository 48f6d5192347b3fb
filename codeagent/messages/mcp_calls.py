"""What is said of one call of a tool of an MCP server: the order, the answer, and the fact on a stream of its own."""

from __future__ import annotations

from typing import Annotated, ClassVar
from uuid import UUID

from codeagent.messages.conversation import ToolCall
from codeagent.messages.envelope import Command, Event
from codeagent.messages.mcp import McpPin
from codeagent.messages.personal import CONTENT_DIGEST, CONTENT_REF, Personal
from codeagent.messages.values import Digest, Outcome


class CallMcpTool(Command):
    """Have a server carry out one call of its `tool`, if it still offers what `pin` says. One that is not `read_only`
    is asked for at most once."""

    NAME: ClassVar[str] = "mcp.call"

    effect_id: UUID
    run_id: str
    server: str
    tool: str
    call: ToolCall
    pin: McpPin
    read_only: bool = False


class McpResult(Event):
    """Answers `mcp.call`. `output` is what the model is told where the outcome is `done`, the whole of it at
    `output_ref` where it had to be cut; `is_error` where the tool says that it has failed."""

    NAME: ClassVar[str] = "mcp.result"

    effect_id: UUID
    run_id: str
    attempt: int
    outcome: Outcome
    output: Annotated[str, Personal("the agent's work", "what a server said")] = ""
    output_ref: Annotated[Digest | None, CONTENT_REF] = None
    is_error: bool = False
    error_reason: str = ""
    error: Annotated[str, Personal("the agent's work", "what a server said")] = ""
    duration_seconds: float = 0.0


class McpCallEnded(Event):
    """The recorded end of one call. Digests are of the arguments as sent and of the whole text that came back;
    `offered_digest` is of the pinned tools as the server had them, where that differs from the pin."""

    NAME: ClassVar[str] = "mcp.call.ended"

    effect_id: UUID
    run_id: str
    attempt: int
    outcome: Outcome
    server: str
    tool: str
    tools_digest: Digest
    offered_digest: Digest | None = None
    arguments_digest: Annotated[str, CONTENT_DIGEST]
    result_digest: Annotated[str, CONTENT_DIGEST] = ""
    result_bytes: int = 0
    is_error: bool = False
    protocol_version: str = ""
    error_reason: str = ""
    duration_seconds: float
