"""The tools a coding agent may call, and the reading of the calls a model writes. Pure: nothing here runs anything."""

from __future__ import annotations

from decimal import Decimal
from functools import cache
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from codeagent.messages.conversation import ToolCall, ToolSpec
from codeagent.messages.mcp import PREFIX

MAX_PATH = 1024


class ToolArguments(BaseModel):
    """Base of the typed arguments. Unknown arguments are refused, so that a model learns the right names."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    TOOL: ClassVar[str]
    DESCRIPTION: ClassVar[str]


Path = Annotated[str, Field(min_length=1, max_length=MAX_PATH, description="Path relative to the repository root.")]


class Shell(ToolArguments):
    TOOL: ClassVar[str] = "shell"
    DESCRIPTION: ClassVar[str] = (
        "Run a bash command in the repository root. {network} Returns the exit code and the output."
    )

    command: str = Field(min_length=1, max_length=100_000)
    timeout_seconds: int | None = Field(default=None, ge=1, le=1800)


class ReadFile(ToolArguments):
    TOOL: ClassVar[str] = "read_file"
    DESCRIPTION: ClassVar[str] = "Read a text file, or the given lines of it (1-based, inclusive)."

    path: Path
    start_line: int | None = Field(default=None, ge=1)
    end_line: int | None = Field(default=None, ge=1)


class WriteFile(ToolArguments):
    TOOL: ClassVar[str] = "write_file"
    DESCRIPTION: ClassVar[str] = "Create a file, or replace the whole of it."

    path: Path
    content: str


class EditFile(ToolArguments):
    TOOL: ClassVar[str] = "edit_file"
    DESCRIPTION: ClassVar[str] = "Replace a piece of text that occurs exactly once in a file."

    path: Path
    old: str = Field(min_length=1)
    new: str


class Search(ToolArguments):
    TOOL: ClassVar[str] = "search"
    DESCRIPTION: ClassVar[str] = "Search file contents with an extended regular expression. Returns path:line:text."

    pattern: str = Field(min_length=1, max_length=1_000)
    path: str = Field(default=".", max_length=MAX_PATH)


class Submit(ToolArguments):
    TOOL: ClassVar[str] = "submit"
    DESCRIPTION: ClassVar[str] = "Finish: the changes are collected as a patch. Say what was done and what was not."

    summary: str = Field(max_length=20_000)


Arguments = TypeVar("Arguments", bound=ToolArguments)


class DelegateBudget(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    cost_usd: Decimal | None = Field(default=None, gt=0, le=100_000)
    max_steps: int | None = Field(default=None, ge=1, le=1_000)


class Delegate(ToolArguments):
    """Offered where an agent's version names others (`agent.delegates`)."""

    TOOL: ClassVar[str] = "delegate"

    task: str = Field(min_length=1, max_length=32_000, pattern=r"^[^\x00]*$")
    agent: str | None = Field(default=None, max_length=100)
    budget: DelegateBudget = DelegateBudget()


TOOLS: dict[str, type[ToolArguments]] = {
    tool.TOOL: tool for tool in (Shell, ReadFile, WriteFile, EditFile, Search, Submit)
}


NAMES = tuple(TOOLS)
SANDBOXED = frozenset(TOOLS) - {Submit.TOOL}
"""The tools that do something, which a person may be asked about."""
READING = frozenset({ReadFile.TOOL, Search.TOOL})
"""The tools that change nothing, so that several may be carried out at once."""
CHANGING = SANDBOXED - READING
"""The tools that may change files: whichever is not known to only read them."""


COMMANDS = frozenset({Shell.TOOL, Search.TOOL})
"""The tools that run a program, and count against what a run's commands may use."""


class BadToolCall(ValueError):
    """A call that cannot be carried out; the text tells the model why. `code` is stable."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@cache
def specs(offered: tuple[str, ...] = NAMES, egress: tuple[str, ...] | None = None) -> tuple[ToolSpec, ...]:
    """The tools as offered to a model. Names that are none of ours offer nothing; `egress` is what commands reach."""
    network = f"The network leads to {', '.join(egress)} only, by HTTPS." if egress else "There is no network."
    return tuple(
        ToolSpec(name=name, description=tool.DESCRIPTION.replace("{network}", network), parameters=_parameters(tool))
        for name, tool in TOOLS.items()
        if name in offered
    )


def _parameters(tool: type[ToolArguments]) -> dict[str, Any]:
    schema = tool.model_json_schema()
    schema.pop("title", None)
    for field in schema.get("properties", {}).values():
        field.pop("title", None)
    return schema


def check_offered(name: str, offered: tuple[str, ...] = NAMES) -> None:
    """Raises `BadToolCall`: to a model, a tool that it is not offered is none."""
    if name not in offered or not (name in TOOLS or name == Delegate.TOOL or name.startswith(PREFIX)):
        raise BadToolCall("unsupported_tool", f"There is no tool {name!r}. Tools: {', '.join(offered)}.")


def parse(call: ToolCall) -> ToolArguments:
    """The call's arguments, typed. Raises `BadToolCall` for an unknown tool or arguments that do not fit."""
    check_offered(call.name)
    return read(TOOLS[call.name], call)


def read(tool: type[Arguments], call: ToolCall) -> Arguments:
    """The call's arguments as those of `tool`. Raises `BadToolCall` where they do not fit."""
    try:
        document = from_json(call.arguments or "{}")
    except ValueError as error:
        raise BadToolCall("malformed_arguments", f"The arguments are not valid JSON: {error}") from None
    try:
        return tool.model_validate(document)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in item['loc']) or 'arguments'}: {item['msg']}"
            for item in error.errors()[:5]
        )
        raise BadToolCall("invalid_arguments", f"The arguments do not fit {call.name}: {problems}") from None
