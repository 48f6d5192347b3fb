"""One call of a server's tool, if the server still offers just what was pinned."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from mcp.types import CallToolResult, Implementation

from codeagent import __version__
from codeagent.mcp.failures import McpFailure
from codeagent.mcp.servers import McpServer, McpServers
from codeagent.mcp.transport import GuardedTransport, Lookup, look_up
from codeagent.messages.mcp import McpPin, McpTool, digest_of

MOST_BYTES = 4 << 20
"""Of all that a server sends for one call, its list of tools among it."""
MOST_PAGES = 20
_TOLD_CHARACTERS = 500


@dataclass(frozen=True, slots=True)
class Answer:
    """What a tool returned, as text."""

    text: str
    is_error: bool
    protocol_version: str


class McpClient:
    """Opens a session for each call and keeps nothing: what a server offers is looked at each time. Raises
    `McpFailure`, never anything else."""

    def __init__(self, servers: McpServers, *, lookup: Lookup = look_up, most_bytes: int = MOST_BYTES) -> None:
        self._servers = servers
        self._lookup = lookup
        self._most_bytes = most_bytes

    async def tools(self, server: str) -> tuple[McpTool, ...]:
        """All that the server offers now, as the operator asks."""
        async with self._session(self._servers.named(server, None)) as session:
            return await _offered(session)

    async def call(self, tenant_id: str, server: str, tool: str, arguments: dict[str, Any], pin: McpPin) -> Answer:
        async with self._session(self._servers.named(server, tenant_id)) as session:
            _check(await _offered(session), pin)
            result = await session.call_tool(tool, arguments)
            return Answer(_text(result), bool(result.is_error), str(session.protocol_version))

    @asynccontextmanager
    async def _session(self, server: McpServer) -> AsyncIterator[Client]:
        settings, headers = server.settings, server.headers()
        guard = GuardedTransport(server, lookup=self._lookup, most_bytes=self._most_bytes)
        try:
            async with (
                asyncio.timeout(settings.timeout_seconds),
                httpx2.AsyncClient(transport=guard, headers=headers, timeout=None, trust_env=False) as http,
                Client(
                    streamable_http_client(settings.url, http_client=http),
                    client_info=Implementation(name="codeagent", version=__version__),
                    cache=None,
                ) as session,
            ):
                yield session
        except Exception as error:
            raise _failure(error, guard.fault) from None


def _check(offered: tuple[McpTool, ...], pin: McpPin) -> None:
    digest = digest_of(tool for tool in offered if tool.name in pin.tools)
    if digest != pin.digest:
        detail = "The server does not offer the tools any more that this agent was made with, or describes them anew."
        raise McpFailure(f"{detail} None of them was called.", "mcp_tools_changed", offered_digest=digest)


async def _offered(session: Client) -> tuple[McpTool, ...]:
    found: list[McpTool] = []
    cursor: str | None = None
    for _ in range(MOST_PAGES):
        page = await session.list_tools(cursor=cursor)
        found += [
            McpTool(name=tool.name, description=tool.description or "", input_schema=tool.input_schema)
            for tool in page.tools
        ]
        cursor = page.next_cursor
        if cursor is None:
            return tuple(found)
    raise McpFailure("The server's list of tools does not end.", "mcp_protocol_error")


def _text(result: CallToolResult) -> str:
    """All that is text of a result. Where there is none, what it has in its place as JSON."""
    parts = []
    for block in result.content:
        text = getattr(block, "text", None) or getattr(getattr(block, "resource", None), "text", None)
        parts.append(text if isinstance(text, str) else f"[{block.type} left out]")
    if not parts and result.structured_content is not None:
        parts.append(json.dumps(result.structured_content, ensure_ascii=False))
    return "\n".join(parts)


def _failure(error: Exception, fault: McpFailure | None) -> McpFailure:
    """What has gone wrong first: ours, else what the way there has noted, else what the library says."""
    causes = tuple(_leaves(error))
    for cause in causes:
        if isinstance(cause, McpFailure):
            return cause
    if fault is not None:
        return fault
    for cause in causes:
        if isinstance(cause, TimeoutError):
            return McpFailure("The server was not done in time.", "mcp_timeout")
        if isinstance(cause, MCPError):
            detail = f"The server answered with an error: {cause.error.message[:_TOLD_CHARACTERS]}"
            return McpFailure(detail, "mcp_protocol_error")
    return McpFailure("The server's answer is none of the protocol.", "mcp_protocol_error")


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """The errors of a group, of its groups too: the library's tasks end together."""
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    else:
        yield error
