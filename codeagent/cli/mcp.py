"""`codeagent mcp`: what MCP servers offer, in the words of an agent's version."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from codeagent.cli.connected import USAGE, DataDir, directory, failure

app = typer.Typer(no_args_is_help=True, help="The servers of CODEAGENT_MCP_SERVERS, whose tools agents may use.")


@app.command()
def tools(
    server: Annotated[str, typer.Argument(help="Its name in CODEAGENT_MCP_SERVERS.")],
    only: Annotated[list[str] | None, typer.Option("--tool", help="Of its tools this one; may be repeated.")] = None,
    data_dir: DataDir = None,
) -> None:
    """Ask a server for its tools, and print them for `mcp` in the file of an agent. Read them before you put them
    there: models will be told every word."""
    import asyncio

    from codeagent.cli.operate import load_settings
    from codeagent.errors import CodeAgentError
    from codeagent.mcp.client import McpClient
    from codeagent.mcp.servers import McpServers

    try:
        settings = load_settings(directory(data_dir))
        offered = asyncio.run(McpClient(McpServers(settings.mcp_servers)).tools(server))
    except CodeAgentError as error:
        raise failure(f"{server}: {error.detail}") from None
    if only and (missing := set(only) - {tool.name for tool in offered}):
        raise failure(f"{server}: there is no tool {', '.join(sorted(missing))}", USAGE)
    chosen = [tool.model_dump() for tool in offered if not only or tool.name in only]
    typer.echo(json.dumps([{"server": server, "tools": chosen}], indent=2, ensure_ascii=False))
