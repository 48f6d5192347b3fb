"""`codeagent audit verify`, `audit restored` and `audit key`: the proof of the log, for operators."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from codeagent.cli.connected import USAGE, DataDir, directory, failure

Keys = Annotated[
    Path | None,
    typer.Option(help="File of the log's keys, one a line; the public halves are enough. Else AUDIT_SIGNING_KEY's."),
]
Kept = Annotated[
    list[Path] | None, typer.Option("--checkpoint", help="A checkpoint that was kept elsewhere; repeatable.")
]


def verify_log(
    first: Annotated[int, typer.Option("--from", min=0, help="First entry.")] = 0,
    last: Annotated[int | None, typer.Option("--to", min=1, help="Entry to stop before; else all.")] = None,
    anchors: Annotated[
        Path | None, typer.Option(help="Directory of checkpoints that were kept; else AUDIT_ANCHOR_DIR.")
    ] = None,
    topic: Annotated[
        bool, typer.Option("--anchors-from-topic", help="Hold it against all checkpoints that the topic keeps, too.")
    ] = False,
    checkpoint: Kept = None,
    export: Annotated[
        Path | None, typer.Option(help="A file of `audit export --proofs` to verify instead, without the database.")
    ] = None,
    keys: Keys = None,
    projections: Annotated[
        bool | None,
        typer.Option(
            "--projections/--no-projections",
            help="Whether to make the rows that are kept from the log once more and compare; else with the whole log.",
        ),
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Recompute the proof of the whole log from its rows, and hold it against what was signed; then hold what is kept
    from it, as lists, usage and the audit, against the log.

    Every problem is a line that begins with FAILED. Exit status 1 when there is any.
    """
    from codeagent.cli.verifying import Wanted, verify, verify_export

    kept = list(checkpoint or ())
    for path in (*kept, *(each for each in (anchors, keys, export) if each is not None)):
        if not path.exists():
            raise failure(f"there is no {path}", USAGE)
    if last is not None and last <= first:
        raise failure("--to has to be beyond --from", USAGE)
    if export is not None:
        if projections:
            raise failure("an export has no projections", USAGE)
        raise typer.Exit(verify_export(directory(data_dir), export, keys))
    is_whole = first == 0 and last is None
    if projections and not is_whole:
        raise failure("projections are made of the whole log: give no range with --projections", USAGE)
    asked = is_whole if projections is None else projections
    raise typer.Exit(verify(directory(data_dir), Wanted(first, last, anchors, kept, keys, asked, topic)))


def restored_log(
    kept: Annotated[int | None, typer.Option(min=0, help="How many entries the log goes on from.")] = None,
    signed: Annotated[int | None, typer.Option(min=1, help="How many were signed; what is beyond is given up.")] = None,
    anchors: Annotated[
        Path | None, typer.Option(help="Directory of checkpoints that were kept; else AUDIT_ANCHOR_DIR.")
    ] = None,
    checkpoint: Kept = None,
    data_dir: DataDir = None,
) -> None:
    """After a restore: tell what was signed that the log does not have, by the topic and the directory of checkpoints,
    and with both numbers state, signed with the log's key, that it goes on without.

    Exit status 3 where something is missing and nothing was stated, 1 where what the log has does not hold.
    """
    from codeagent.cli.log_restore import Wanted, state_restore

    for path in (*(checkpoint or ()), *(each for each in (anchors,) if each is not None)):
        if not path.exists():
            raise failure(f"there is no {path}", USAGE)
    raise typer.Exit(state_restore(directory(data_dir), Wanted(kept, signed, anchors, list(checkpoint or ()))))


def new_key(
    origin: Annotated[str, typer.Argument(help="Name of the log, as in audit.example.com/codeagent.")],
) -> None:
    """Make a key for AUDIT_SIGNING_KEY. The secret line goes to standard output, the public one to standard error.

    To rotate, put the new line in front of the old one, under the same name.
    """
    from codeagent.transparency.notes import SigningKey

    try:
        key = SigningKey.new(origin)
    except ValueError as error:
        raise failure(str(error), USAGE) from None
    typer.echo(key.secret())
    sys.stderr.write(f"{key.verifier}\n")
