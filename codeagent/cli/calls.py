"""`codeagent calls`: the model calls of a run, from the terminal."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from codeagent.cli.connected import DataDir, connected

COLUMNS = ("step", "model", "ended", "attempts", "input_tokens", "output_tokens", "cost_usd", "seconds")


def show_calls(
    run_id: Annotated[str, typer.Argument(help="The run, as in run_01jd...")],
    as_json: Annotated[bool, typer.Option("--json", help="All that is known of each, a line a call.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Show what a run has asked models: tokens and cost of all attempts of a call, and what it ended with."""
    with connected(data_dir) as client:
        items = list(client.items(f"/v1/runs/{run_id}/calls"))
    if as_json:
        for item in items:
            typer.echo(json.dumps(item))
        return
    typer.echo("  ".join(COLUMNS))
    for item in items:
        typer.echo("  ".join(_told(item)))


def _told(item: dict[str, Any]) -> tuple[str, ...]:
    end = item["end"]
    if end is None:
        return (str(item["step"]), "-", "at work", *("-" for _ in COLUMNS[3:]))
    usage = end["usage"]
    ended = end["error_reason"] or end["finish_reason"] or end["outcome"]
    return (
        str(item["step"]),
        end["model"],
        f"{ended}, cached" if end["cached"] else ended,
        str(len(item["attempts"])),
        str(usage["input_tokens"]),
        str(usage["output_tokens"]),
        end["cost_usd"] or "-",
        f"{end['duration_seconds']:.1f}",
    )
