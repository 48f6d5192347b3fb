"""`codeagent doctor`: what this machine can isolate, from the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def doctor(
    minimum_level: Annotated[
        int | None, typer.Option(min=1, max=3, help="Level to reach; without it, as configured.")
    ] = None,
    state_dir: Annotated[Path | None, typer.Option(help="Where runtimes are kept.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As one JSON document.")] = False,
) -> None:
    """Try every sandbox driver on this machine: which isolate, at what level, and what the others lack."""
    from codeagent.cli.examination import examine

    raise typer.Exit(examine(minimum_level, state_dir, as_json=as_json))
