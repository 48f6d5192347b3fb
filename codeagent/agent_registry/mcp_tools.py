"""Tools of MCP servers in an agent's version: what may be pinned, and what the operator says of it now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from codeagent.errors import InvalidInput
from codeagent.messages.mcp import LONGEST_NAME, McpTool, McpTools, digest_of

MOST_BYTES = 48 << 10
"""Of all that a version pins: it travels with every run."""


def pinned(server: str, tools: Iterable[McpTool]) -> McpTools:
    """The tools of one server, by name. Raises `InvalidInput` (`unsupported_mcp_tool`)."""
    ordered = tuple(sorted(tools, key=lambda tool: tool.name))
    offer = McpTools(server=server, digest=digest_of(ordered), tools=ordered)
    names = [tool.name for tool in ordered]
    for place, name in enumerate(names):
        if name in names[:place]:
            raise _unsupported(f"The tool {name!r} is there twice.")
        if len(offer.named(name)) > LONGEST_NAME:
            raise _unsupported(f"{offer.named(name)} has more than {LONGEST_NAME} characters.")
    return offer


def check_all(offers: tuple[McpTools, ...]) -> tuple[McpTools, ...]:
    """By server. Raises `InvalidInput` (`unsupported_mcp_tool`) for a server that is there twice, and for too much."""
    servers = [offer.server for offer in offers]
    if len(set(servers)) < len(servers):
        raise _unsupported("A server is there twice.")
    if sum(len(offer.model_dump_json().encode()) for offer in offers) > MOST_BYTES:
        raise _unsupported(f"The tools' descriptions have more than {MOST_BYTES} bytes together.")
    return tuple(sorted(offers, key=lambda offer: offer.server))


def check_listed(offers: tuple[McpTools, ...], listed: Iterable[str]) -> None:
    """Raises `InvalidInput` (`unsupported_mcp_server`) for a server that the operator does not list for the
    tenant."""
    known = sorted(listed)
    for place, offer in enumerate(offers):
        if offer.server not in known:
            there = f"there are {', '.join(known)}" if known else "there is none"
            detail = f"There is no MCP server {offer.server!r}: {there}."
            raise InvalidInput(detail, code="unsupported_mcp_server", pointer=f"/mcp/{place}/server")


def with_read_only(offers: tuple[McpTools, ...], read_only: Mapping[str, frozenset[str]]) -> tuple[McpTools, ...]:
    """The same, with the tools marked that the operator lists as changing nothing now."""
    return tuple(
        offer.model_copy(
            update={
                "tools": tuple(
                    tool.model_copy(update={"read_only": tool.name in read_only.get(offer.server, frozenset())})
                    for tool in offer.tools
                )
            }
        )
        for offer in offers
    )


def _unsupported(detail: str) -> InvalidInput:
    return InvalidInput(detail, code="unsupported_mcp_tool", pointer="/mcp")
