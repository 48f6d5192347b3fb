"""`codeagent kek`: the key-encryption keys that seal secrets in the database."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Key-encryption keys, which seal secrets in the database.")
FAILED, USAGE = 1, 2


@app.command("new")
def new_kek(
    name: Annotated[str | None, typer.Argument(help="Of the key; today's date without one.")] = None,
    file: Annotated[Path | None, typer.Option(help="Add it to this file instead of printing it.")] = None,
    use: Annotated[
        bool, typer.Option("--use", help="In front, so that it seals at once. Without: it only opens.")
    ] = False,
) -> None:
    """Make a key. Where several processes run, add it first, and put its line in front once all of them know it."""
    from codeagent.cli.kek_file import add_key
    from codeagent.encryption import new_key_line

    line = new_key_line(name or f"{datetime.now(UTC):%Y-%m-%d}")
    if file is None:
        typer.echo(line)
        return
    try:
        add_key(file, line, first=use)
    except (OSError, ValueError) as error:
        typer.echo(f"codeagent: {file}: {error}", err=True)
        raise typer.Exit(USAGE) from None


@app.command()
def reseal(
    data_dir: Annotated[Path | None, typer.Option("--data-dir", help="Of a system on this machine.")] = None,
) -> None:
    """Put every sealed secret under the first key, while the system runs. Exits 1 while another key is needed."""
    from codeagent.cli.kek_file import reseal_all
    from codeagent.cli.operate import guarded

    raise typer.Exit(guarded(reseal_all(data_dir)))
