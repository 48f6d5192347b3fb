"""Which MCP servers the operator lets runs use, and the way to each."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from codeagent.mcp.failures import McpFailure
from codeagent.messages.mcp import SERVER_PATTERN

_MOST_TOKEN_BYTES = 16_384


class McpServerSettings(BaseModel):
    """One server that speaks the protocol over streamable HTTP."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=SERVER_PATTERN)
    """What agents' versions call it by. Tools are offered to models as `mcp__NAME__TOOL`."""
    url: str = Field(max_length=2_000)
    """Its endpoint, as in `https://mcp.example.com/mcp`."""
    bearer_token_file: Path | None = None
    """What opens it, on the provider workers' machines. Read again for every call, so that a mounted secret can be
    replaced while workers run."""
    read_only: tuple[str, ...] = ()
    """Its tools that change nothing. All others count as changing: people can be asked about them, and one whose worker
    died is not called again."""
    private: bool = False
    """Whether its name may lead to an address that is not public, and its URL be plain http."""
    certificates: Path | None = None
    """PEM file of the authority that signed its certificate; none: the usual ones."""
    timeout_seconds: float = Field(default=60.0, ge=1, le=600)
    """Bound of one call, with all that it takes to get there."""
    tenants: tuple[str, ...] | None = Field(default=None, min_length=1)
    """Whose versions and runs may use it, by the tenants' ids; none given: everybody's. A production needs it for a
    server that is private or has a token."""

    def serves(self, tenant_id: str) -> bool:
        return self.tenants is None or tenant_id in self.tenants

    @model_validator(mode="after")
    def _encrypted(self) -> Self:
        if urlsplit(self.url).scheme != "https" and not self.private:
            raise ValueError("a server that is not private needs an https address")
        return self

    @field_validator("url")
    @classmethod
    def _plain_url(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username or parts.fragment:
            raise ValueError("must be an http or https address without credentials or fragment")
        return value


class McpServer:
    """A server, with its token of the moment."""

    def __init__(self, settings: McpServerSettings) -> None:
        self.settings = settings

    def headers(self) -> dict[str, str]:
        """Raises `McpFailure` where there should be a token and is none."""
        path = self.settings.bearer_token_file
        if path is None:
            return {}
        try:
            with path.open("rb") as file:
                token = file.read(_MOST_TOKEN_BYTES).decode("ascii").strip()
        except (OSError, ValueError):
            token = ""
        if not token or not token.isascii() or not token.isprintable() or " " in token:
            raise McpFailure("The server's token cannot be had.", "mcp_credential_unavailable")
        return {"Authorization": f"Bearer {token}"}


class McpServers:
    """The servers of one process, by name."""

    def __init__(self, settings: Iterable[McpServerSettings] = ()) -> None:
        self._servers = {item.name: McpServer(item) for item in settings}

    def named(self, name: str, tenant_id: str | None) -> McpServer:
        """For a tenant, or for the operator, who is None. Raises `McpFailure`."""
        server = self._servers.get(name)
        if server is None or (tenant_id is not None and not server.settings.serves(tenant_id)):
            raise McpFailure(f"The operator lists no MCP server {name!r}.", "mcp_server_unknown")
        return server


def named_once(servers: tuple[McpServerSettings, ...]) -> tuple[McpServerSettings, ...]:
    """Raises `ValueError` for two of the same name."""
    names = [server.name for server in servers]
    if doubled := [name for place, name in enumerate(names) if name in names[:place]]:
        raise ValueError(f"two servers are named {doubled[0]!r}")
    return servers
