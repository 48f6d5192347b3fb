"""Tools of MCP servers in the body of an agent's version: as `codeagent mcp tools SERVER` prints them."""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from codeagent.agent_registry.mcp_tools import pinned
from codeagent.edge.models import Strict
from codeagent.messages.mcp import SERVER_PATTERN, TOOL_PATTERN, McpTool, McpTools

MOST_SCHEMA_BYTES = 16_000


def _portable(schema: dict[str, Any]) -> dict[str, Any]:
    """Raises `ValueError` for what is no JSON Schema of an object, or not to be written as JSON everywhere."""
    if schema.get("type") != "object":
        raise ValueError("it should be a JSON Schema of type object")
    try:
        text = json.dumps(schema, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):
        raise ValueError("it should be JSON that every program can read") from None
    if len(text) > MOST_SCHEMA_BYTES or b"\\u0000" in text:
        raise ValueError(f"it should have at most {MOST_SCHEMA_BYTES} bytes, and no NUL")
    return schema


class McpToolBody(Strict):
    """A tool, word for word as its server describes it."""

    name: str = Field(pattern=TOOL_PATTERN, examples=["search"])
    description: str = Field(
        default="", max_length=8_000, pattern=r"^[^\x00]*$", examples=["Search the documentation."]
    )
    input_schema: Annotated[dict[str, Any], AfterValidator(_portable)] = Field(
        description="A JSON Schema of type object.",
        json_schema_extra={"properties": {"type": {"const": "object"}}, "required": ["type"]},
        examples=[{"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]}],
    )


class McpToolsBody(Strict):
    """Tools of one server."""

    server: str = Field(pattern=SERVER_PATTERN, description="A name that the operator lists.", examples=["docs"])
    tools: tuple[McpToolBody, ...] = Field(min_length=1, max_length=50)

    def pinned(self) -> McpTools:
        """Raises `InvalidInput`."""
        return pinned(self.server, [McpTool.model_validate(tool.model_dump()) for tool in self.tools])
