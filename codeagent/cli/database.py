"""`codeagent db`: the database's schema, its backups, and what comes back of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from codeagent.cli.connected import DataDir

app = typer.Typer(no_args_is_help=True, help="The database: its schema, its backups.")

_VARIABLE = "CODEAGENT_BACKUP_DIR"
BinDir = Annotated[
    Path | None, typer.Option(help="Where PostgreSQL's programs of the same version are, if they are not found.")
]
From = Annotated[Path, typer.Option("--from", envvar=_VARIABLE, help="Directory of backups.")]


@app.command()
def upgrade(data_dir: DataDir = None) -> None:
    """Bring the database to this program's schema."""
    from codeagent.cli.operate import upgrade_database

    raise typer.Exit(upgrade_database(data_dir))


@app.command()
def backup(
    to: Annotated[Path, typer.Option(envvar=_VARIABLE, help="Directory of backups; made where there is none.")],
    bin_dir: BinDir = None,
    data_dir: DataDir = None,
) -> None:
    """Take a base backup of the running database, and verify it. Keys and artifacts are not in it: keep them apart.

    The database is that of `codeagent up`, else CODEAGENT_DATABASE_URL, whose role has to be one that may replicate.
    """
    from codeagent.cli.backing_up import back_up

    raise typer.Exit(back_up(to.absolute(), data_dir, bin_dir))


@app.command("list")
def list_backups(source: From, bin_dir: BinDir = None) -> None:
    """Show the backups of a directory, and from when to when each can be restored. Exits 1 where something is missing,
    and says what."""
    from codeagent.cli.backing_up import show

    raise typer.Exit(show(source.absolute(), bin_dir))


@app.command()
def prune(
    source: From,
    older_than: Annotated[int, typer.Option(min=1, help="Days.")] = 30,
    keep: Annotated[int, typer.Option(min=1, help="The newest, which stay however old they are.")] = 1,
) -> None:
    """Remove old backups, and of the archive what none of the others needs."""
    from codeagent.cli.backing_up import remove_old

    raise typer.Exit(remove_old(source.absolute(), older_than, keep))


@app.command()
def restore(
    source: From,
    to: Annotated[Path, typer.Option(help="The new directory: a data directory of `codeagent up`, else PostgreSQL's.")],
    at: Annotated[
        str | None, typer.Option(help="Moment to restore to, as in 2026-11-27T03:00:00Z; else all that was archived.")
    ] = None,
    label: Annotated[
        str | None, typer.Option("--backup", help="As `list` names it; else the newest that leads there.")
    ] = None,
    timeline: Annotated[int | None, typer.Option(min=1, help="As `list` names it; else the newest.")] = None,
    incomplete: Annotated[
        bool,
        typer.Option("--incomplete", help="Put up with an archive that has a hole or is damaged: restore up to it."),
    ] = False,
    keys: Annotated[
        Path | None, typer.Option(help="File of the log's keys, the public halves are enough; else AUDIT_SIGNING_KEY.")
    ] = None,
    anchors: Annotated[
        Path | None,
        typer.Option(envvar="CODEAGENT_AUDIT_ANCHOR_DIR", help="Directory of checkpoints that were kept."),
    ] = None,
    topic: Annotated[
        bool,
        typer.Option("--anchors-from-topic", help="Hold it against the checkpoints that the topic keeps, too."),
    ] = False,
    keys_from: Annotated[
        Path | None, typer.Option(help="Data directory of `codeagent up` that lends its keys and checkpoints.")
    ] = None,
    verify: Annotated[bool, typer.Option("--verify/--no-verify", help="Verify the restored log.")] = True,
    bin_dir: BinDir = None,
) -> None:
    """Restore a backup into a new directory, verify its log, and tell what is not in it.

    Exit status 1 when it cannot be restored, or the restored log does not hold or was not verified.
    """
    from codeagent.cli.restoring import Order, restore_database

    order = Order(source, to, at, label, timeline, incomplete, keys, anchors, topic, keys_from, verify, bin_dir)
    raise typer.Exit(restore_database(order))
