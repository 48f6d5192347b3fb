"""`codeagent projections`: read models that are kept from the log, and making them anew."""

from __future__ import annotations

from typing import Annotated

import typer

from codeagent.cli.connected import DataDir

app = typer.Typer(no_args_is_help=True, help="Look at what is kept from the log, check it, make it anew.")
Names = Annotated[list[str] | None, typer.Argument(help="Which, as `list` names them; all where none is named.")]


@app.command("list")
def list_projections(data_dir: DataDir = None) -> None:
    """Show how far each projection is, and when it was last made anew."""
    from codeagent.cli.projection_work import show

    raise typer.Exit(show(data_dir))


@app.command()
def check(names: Names = None, data_dir: DataDir = None) -> None:
    """Make the rows of projections a second time from the whole log and compare. Changes nothing; relays may be at
    work. Exits with 1 where rows differ."""
    from codeagent.cli.projection_work import make

    raise typer.Exit(make(data_dir, names or (), swap=False))


@app.command()
def rebuild(names: Names = None, data_dir: DataDir = None) -> None:
    """Make the rows of projections anew from the whole log, beside the ones that are read, and swap them at the end.
    Relays may be at work, and readers notice nothing."""
    from codeagent.cli.projection_work import make

    raise typer.Exit(make(data_dir, names or (), swap=True))
