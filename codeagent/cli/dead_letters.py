"""`codeagent dlq`: records that no consumer could handle, on the database itself: no edge has to be up."""

from __future__ import annotations

from typing import Annotated

import typer

from codeagent.cli.connected import USAGE, DataDir, failure

app = typer.Typer(no_args_is_help=True, help="Dead letters: look at them, send them again, discard them.")
LetterId = Annotated[str, typer.Argument(help="As `list` names it.")]
Topic = Annotated[str | None, typer.Option(help="The topic that it failed on, as in codeagent.run.commands.v1.")]
ErrorType = Annotated[str | None, typer.Option("--error", help="Code or class of the error, as in invalid_payload.")]
Since = Annotated[str | None, typer.Option(help="Those that failed from this moment on, as in 2026-11-23T00:00:00Z.")]


@app.command("list")
def list_letters(
    topic: Topic = None,
    state: Annotated[str, typer.Option(help="open, redriven, discarded or all.")] = "open",
    error: ErrorType = None,
    since: Since = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Lines at most.")] = 50,
    data_dir: DataDir = None,
) -> None:
    """Show dead letters, newest first, without what they hold."""
    from codeagent.cli.dead_letter_work import Wanted, show_all

    raise typer.Exit(show_all(data_dir, Wanted(topic, state, error, since), limit))


@app.command()
def show(
    letter_id: LetterId,
    value: Annotated[
        bool, typer.Option("--value", help="With what the record holds; that you looked is written down.")
    ] = False,
    data_dir: DataDir = None,
) -> None:
    """Show one dead letter, as JSON."""
    from codeagent.cli.dead_letter_work import show_one

    raise typer.Exit(show_one(data_dir, letter_id, value=value))


@app.command()
def redrive(
    letter_id: Annotated[str | None, typer.Argument(help="As `list` names it.")] = None,
    again: Annotated[bool, typer.Option("--again", help="Also where it was sent before.")] = False,
    every: Annotated[bool, typer.Option("--all", help="All that are open and fit, the oldest first.")] = False,
    topic: Topic = None,
    error: ErrorType = None,
    since: Since = None,
    most: Annotated[int, typer.Option(min=1, max=10_000, help="With --all: how many at most.")] = 100,
    data_dir: DataDir = None,
) -> None:
    """Send the same record to the topic that it failed on. A relay or a worker does so within a second or so."""
    from codeagent.cli.dead_letter_work import Wanted, send, send_all

    if every == (letter_id is not None):
        raise failure("give the id of one, or --all", USAGE)
    if letter_id is None:
        if again:
            raise failure("--again is for one at a time", USAGE)
        raise typer.Exit(send_all(data_dir, Wanted(topic, "open", error, since), most))
    if (topic, error, since) != (None, None, None):
        raise failure("--topic, --error and --since go with --all", USAGE)
    raise typer.Exit(send(data_dir, letter_id, again=again))


@app.command()
def discard(
    letter_id: LetterId,
    reason: Annotated[str, typer.Option(help="Why nobody will handle it. It stays in the log.")],
    data_dir: DataDir = None,
) -> None:
    """Forget what a record holds, for good."""
    from codeagent.cli.dead_letter_work import forget

    raise typer.Exit(forget(data_dir, letter_id, reason))
