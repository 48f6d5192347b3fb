"""`codeagent privacy`: what persons may ask for about their data, done from the terminal."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from codeagent.cli.connected import USAGE, DataDir, connected, directory, failure

if TYPE_CHECKING:
    pass

app = typer.Typer(no_args_is_help=True, help="What persons may ask for about their data.")
REQUESTS = "/v1/privacy/requests"

Subject = Annotated[str, typer.Argument(help="Id of a user, as in usr_0k7x3n9q2vd8m5c1.")]
Note = Annotated[str, typer.Option(help="How it was asked for. Nothing of the person.")]
To = Annotated[Path | None, typer.Option("--to", help="File to write, which must not be there; else standard output.")]


@app.command()
def erase(
    subject: Subject,
    note: Note = "",
    to: To = None,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for the certificate at most.")] = 600.0,
    data_dir: DataDir = None,
) -> None:
    """Erase a person: end their access and their runs, and make what they left unreadable for good.

    Shows the signed certificate of it. What goes on when this ends, goes on by itself: the same command waits again.
    """
    from codeagent.cli.person import certified, close, taken_in

    _check_new(to)
    with connected(data_dir) as client:
        request = taken_in(client, "erasure", subject, note)
        text = certified(client, request["id"], wait)
        if text is None:
            raise failure(f"{request['id']} is still at work: the same command waits for it again")
        _write(text.encode(), to)
        left = close(client, request["id"])
    for item in left:
        typer.echo(f"remains: {item['count']} of {item['what']}: {item['why']}", err=True)
    if left:
        raise failure("the request stays open: this was written down before anything was sealed")


@app.command()
def export(subject: Subject, note: Note = "", to: To = None, data_dir: DataDir = None) -> None:
    """Take everything away that is kept of a person, as one JSON document, and nothing of others."""
    from codeagent.cli.person import taken_in

    _check_new(to)
    with connected(data_dir) as client:
        request = taken_in(client, "access", subject, note)
        _write(client.download(f"{REQUESTS}/{request['id']}/export"), to)


@app.command()
def status(
    subject: Annotated[str | None, typer.Option(help="Those of one user.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    data_dir: DataDir = None,
) -> None:
    """List requests, newest first, with when they are due."""
    with connected(data_dir) as client:
        for request in client.items(f"{REQUESTS}?subject={subject}" if subject else REQUESTS):
            typer.echo(json.dumps(request) if as_json else _line(request))


@app.command()
def certificate(
    file: Annotated[Path, typer.Argument(help="A certificate.")],
    keys: Annotated[
        Path | None,
        typer.Option(help="File of the log's keys; the public halves are enough. Else AUDIT_SIGNING_KEY's."),
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Check the certificate of an erasure, and show what it says. Needs no running system."""
    from codeagent.cli.person import show_certificate

    for path in (file, keys):
        if path is not None and not path.is_file():
            raise failure(f"there is no {path}", USAGE)
    raise typer.Exit(show_certificate(directory(data_dir), file, keys))


def _line(request: dict[str, Any]) -> str:
    late = "  overdue" if request["overdue"] else ""
    state = f"{request['kind']:13} {request['status']:11} due {request['due_at']}"
    return f"{request['id']}  {state}  {request['subject']}{late}"


def _check_new(to: Path | None) -> None:
    if to is not None and to.exists():
        raise failure(f"{to} is there already", USAGE)


def _write(content: bytes, to: Path | None) -> None:
    if to is None:
        sys.stdout.buffer.write(content)
        sys.stdout.flush()
        return
    with to.open("xb") as file:
        to.chmod(0o600)
        file.write(content)
