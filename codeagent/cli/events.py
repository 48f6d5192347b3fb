"""`codeagent events`: the log's events, for those who consume them."""

from __future__ import annotations

from typing import Annotated

import typer

from codeagent.cli.connected import USAGE, DataDir, failure

app = typer.Typer(no_args_is_help=True, help="The events of the log.")


@app.callback()
def events() -> None:
    """The events of the log."""


@app.command()
def republish(
    topic: Annotated[str, typer.Option(help="A topic of your own, which is there already.")],
    after: Annotated[
        str, typer.Option("--from", help="A place in the log, as this command and feeds tell it.")
    ] = "start",
    until: Annotated[str, typer.Option("--to", help="The last place; `now` is all there is now.")] = "now",
    data_dir: DataDir = None,
) -> None:
    """Send the events of runs once more, to another topic, for a consumer that is new.

    They are what `codeagent.run.events.v1` had: the same ids, headers and bytes, each run's in order. Interrupted, it
    is continued with --from the place that was told last; a few events then come twice.
    """
    from codeagent.cli.event_work import send_again

    raise typer.Exit(send_again(data_dir, topic, after, until))


@app.command()
def tail(
    stream: Annotated[str | None, typer.Option(help="Of one stream, as in run-run_01....")] = None,
    category: Annotated[str | None, typer.Option(help="Of all streams that begin so, as in run, call or exec.")] = None,
    after: Annotated[
        str, typer.Option("--from", help="A place that this command told, a stream's version, start or now.")
    ] = "now",
    as_json: Annotated[bool, typer.Option("--json", help="One object a line.")] = False,
    data: Annotated[bool, typer.Option("--data", help="Show what events say as well: it may be personal.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Show events as they are committed, of all tenants, until Ctrl-C. None is left out, however late it commits.

    Each line begins with the place after it: --from that place goes on there. What cannot be read is named, and the
    rest goes on.
    """
    from codeagent.cli.event_tail import Wanted, show

    if stream is not None and category is not None:
        raise failure("give --stream or --category, not both", USAGE)
    raise typer.Exit(show(data_dir, Wanted(stream, category, after), as_json=as_json, with_data=data))
