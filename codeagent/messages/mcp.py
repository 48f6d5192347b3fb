"""Tools that servers outside offer by the Model Context Protocol, as an agent's version has pinned them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from hashlib import sha256
from typing import Annotated, Any

from pydantic import Field

from codeagent.messages.conversation import Data

SERVER_PATTERN = r"^[a-z0-9](-?[a-z0-9]){0,29}$"
TOOL_PATTERN = r"^[A-Za-z0-9_-]{1,64}$"
PREFIX = "mcp__"
LONGEST_NAME = 64
"""Characters of a tool's name that every vendor takes."""

_Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


class McpTool(Data):
    """A tool as its server describes it: `input_schema` is a JSON Schema of type object. `read_only` is set where the
    operator lists it as one that changes nothing; what a server says of itself in that is not believed."""

    name: str
    description: str
    input_schema: dict[str, Any]
    read_only: bool = Field(default=False, exclude_if=lambda value: not value)


class McpTools(Data):
    """The tools of one server that runs may call, and the digest of all that a model is told of them."""

    server: str
    digest: _Digest
    tools: tuple[McpTool, ...]

    def named(self, tool: str) -> str:
        """What models call a tool by."""
        return f"{PREFIX}{self.server}__{tool}"


class McpPin(Data):
    """What a server has to offer for any of its tools to be called: these, described just so."""

    tools: tuple[str, ...]
    digest: _Digest


def digest_of(tools: Iterable[McpTool]) -> str:
    """`sha256:` over the tools by name, each its name, description and input schema, as JSON without spaces and with
    sorted keys. Raises `ValueError` for what is no JSON."""
    told = [
        {"description": tool.description, "input_schema": tool.input_schema, "name": tool.name}
        for tool in sorted(tools, key=lambda tool: tool.name)
    ]
    text = json.dumps(told, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return f"sha256:{sha256(text.encode()).hexdigest()}"
