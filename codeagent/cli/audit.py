"""`codeagent audit`: search the audit of a running system, and take it away as a file that can be checked."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer

from codeagent.cli.audit_log import new_key, restored_log, verify_log
from codeagent.cli.connected import FAILED, DataDir, connected, failure

app = typer.Typer(no_args_is_help=True, help="Who did what, from where, when.")
ENDED = "io.codeagent.audit.export.ended.v1"

app.command("verify")(verify_log)
app.command("restored")(restored_log)
app.command("key")(new_key)

Actor = Annotated[str | None, typer.Option(help="Id of the user, account or key owner.")]
Action = Annotated[str | None, typer.Option(help="Event type, as in api_key.created.")]
Kind = Annotated[str | None, typer.Option("--kind", help="Kind of resource, as in run or api_key.")]
Resource = Annotated[str | None, typer.Option("--resource", help="Id of what it was done to.")]
Outcome = Annotated[str | None, typer.Option(help="success, failure or denied.")]
Since = Annotated[str | None, typer.Option(help="From this moment on, as in 2026-11-23T00:00:00Z.")]
Until = Annotated[str | None, typer.Option(help="Before this moment.")]


def _asked(**options: str | None) -> dict[str, str]:
    return {name: value for name, value in options.items() if value is not None}


@app.command()
def search(
    actor: Actor = None,
    action: Action = None,
    kind: Kind = None,
    resource: Resource = None,
    outcome: Outcome = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Lines at most.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="One CloudEvent a line.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Show lines of the audit, newest first. The search is itself written down."""
    asked = _asked(
        actor=actor,
        action=action,
        resource_kind=kind,
        resource_id=resource,
        outcome=outcome,
        since=since,
        until=until,
    )
    with connected(data_dir) as client:
        for event in client.audit(asked, limit):
            typer.echo(json.dumps(event) if as_json else line(event))


def line(event: dict[str, Any]) -> str:
    """For people."""
    action = event["type"].removeprefix("io.codeagent.").rpartition(".v")[0]
    who = f"{event['authtype']} {event['authid']}"
    where = event.get("clientaddress", "-")
    return f"{event['time']}  {action:28} {event['outcome']:8} {who}  {where}  {event['resourceid']}"


@app.command()
def export(
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A file instead of standard output.")] = None,
    since: Since = None,
    until: Until = None,
    proofs: Annotated[bool, typer.Option("--proofs", help="With what `audit verify --export` needs.")] = False,
    form: Annotated[str, typer.Option("--format", help="cloudevents, or ocsf for tools that read that schema.")] = (
        "cloudevents"
    ),
    data_dir: DataDir = None,
) -> None:
    """Write the audit as JSON Lines, oldest first, and check that all of it has come.

    Exit status 1 when it was cut short or its digest does not hold.
    """
    with connected(data_dir) as client:
        wanted = _asked(since=since, until=until, proofs="true" if proofs else None, format=form)
        pieces = client.audit_export(wanted)
        if output is None:
            count = copy_checked(pieces, sys.stdout.buffer)
        else:
            with output.open("wb") as file:
                count = copy_checked(pieces, file)
    if count is None:
        raise failure("the export was cut short, or its digest does not hold", FAILED)
    typer.echo(f"{count} lines, digest holds", err=True)


@app.command()
def proof(
    event_id: Annotated[str, typer.Argument(help="Id of the event, as in a line of the audit.")],
    data_dir: DataDir = None,
) -> None:
    """Show the proof that an event is in the log, as c2sp.org/tlog-proof@v1."""
    with connected(data_dir) as client:
        typer.echo(client.audit_proof(event_id), nl=False)


def copy_checked(lines: Iterator[bytes], file: BinaryIO) -> int | None:
    """Writes all lines, and returns how many the last one vouches for; None where it does not vouch for these."""
    digest, count, last = sha256(), 0, b""
    for line in lines:
        if last:
            digest.update(last)
            count += 1
        file.write(line)
        last = line
    try:
        end = json.loads(last)
        told = end.get("unmapped", end)  # of a line of the OCSF schema
        holds = told["type"] == ENDED and (told["data"]["count"], told["data"]["sha256"]) == (count, digest.hexdigest())
    except (ValueError, KeyError, TypeError):
        return None
    return count if holds else None
