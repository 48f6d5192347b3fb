"""`codeagent usage`: what has been used, from the terminal."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import urlencode

import typer

from codeagent.cli.connected import DataDir, connected

COLUMNS = ("calls", "cost_usd", "commands", "sandbox_seconds", "cpu_seconds", "gib_hours")


def show_usage(
    by: Annotated[str, typer.Option(help="day, model, provider, project, session or principal.")] = "day",
    run_id: Annotated[str | None, typer.Option("--run", help="Of this run, by model, and nothing else.")] = None,
    first: Annotated[str | None, typer.Option("--from", help="First day of UTC; 29 before the last one.")] = None,
    last: Annotated[str | None, typer.Option("--to", help="Last day; today.")] = None,
    data_dir: DataDir = None,
) -> None:
    """Show calls, cost, commands, and their CPU time and memory. The last line has the totals."""
    if run_id is not None:
        path, key = f"/v1/runs/{run_id}/usage", "model"
    else:
        asked = {"group_by": by, "from": first, "to": last}
        said = {name: value for name, value in asked.items() if value is not None}
        path, key = f"/v1/usage?{urlencode(said)}", by if by in {"day", "model", "provider"} else f"{by}_id"
    with connected(data_dir) as client:
        page = client.get(path)
        items = page["items"] if run_id is not None else list(client.items(path))
    typer.echo("  ".join((key, *COLUMNS)))
    for item in items:
        _line(item[key] or "-", item)
    _line("total", page["totals"])


def _line(name: str, figures: dict[str, Any]) -> None:
    typer.echo("  ".join((name, *(str(figures[column]) for column in COLUMNS))))
