"""`codeagent projects` and `codeagent sessions`: what runs belong to, from the terminal."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from codeagent.cli.client import Client

projects = typer.Typer(no_args_is_help=True, help="Repositories and what their runs use.")
sessions = typer.Typer(no_args_is_help=True, help="Conversations: runs that follow each other.")
DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Where the system of this machine keeps its data.")]
FAILED, USAGE = 1, 2


def _asked(data_dir: Path | None, ask: Callable[[Client], None]) -> None:
    """Asks the edge, and says what it refuses."""
    from codeagent.cli.client import ApiError, Client
    from codeagent.cli.connection import NotConnected, find_connection
    from codeagent.embedded.directories import default_data_dir

    try:
        client = Client(find_connection(data_dir.absolute() if data_dir is not None else default_data_dir()))
        try:
            ask(client)
        finally:
            client.close()
    except (ApiError, NotConnected) as error:
        typer.echo(f"codeagent: {error}", err=True)
        refused = isinstance(error, NotConnected) or 400 <= error.status < 500
        raise typer.Exit(USAGE if refused else FAILED) from None


def _all(client: Client, path: str) -> Iterator[dict[str, Any]]:
    joint = "&" if "?" in path else "?"
    page = client.get(f"{path}{joint}limit=200")
    yield from page["items"]
    while page["next_cursor"] is not None:
        page = client.get(f"{path}{joint}limit=200&cursor={page['next_cursor']}")
        yield from page["items"]


def _show(item: dict[str, Any]) -> None:
    typer.echo(json.dumps(item, indent=2))


@projects.command("create")
def create_project(
    name: Annotated[str, typer.Argument(help="Unique among the projects that are not archived.")],
    repository: Annotated[str, typer.Argument(help="https address of its git repository.")],
    ref: Annotated[str, typer.Option(help="Branch, tag or commit that runs begin with.")] = "HEAD",
    model: Annotated[str | None, typer.Option(help="Model of runs that name none.")] = None,
    data_dir: DataDir = None,
) -> None:
    """Make a project and show it."""
    from codeagent.clock import new_uuid

    body = {"name": name, "repository": repository, "default_ref": ref, "model": model}
    _asked(data_dir, lambda client: _show(client.make("/v1/projects", body, str(new_uuid()))))


@projects.command("list")
def list_projects(data_dir: DataDir = None) -> None:
    """One project a line: id, name, repository."""

    def ask(client: Client) -> None:
        for item in _all(client, "/v1/projects"):
            typer.echo(f"{item['id']}  {item['name']}  {item['repository']}")

    _asked(data_dir, ask)


@projects.command("show")
def show_project(project_id: Annotated[str, typer.Argument()], data_dir: DataDir = None) -> None:
    """A project as JSON."""
    _asked(data_dir, lambda client: _show(client.get(f"/v1/projects/{project_id}")))


@sessions.command("create")
def create_session(
    project: Annotated[str | None, typer.Option(help="Project whose its runs will be.")] = None,
    title: Annotated[str, typer.Option(help="What it is about.")] = "",
    data_dir: DataDir = None,
) -> None:
    """Begin a session and show it; `codeagent run --session` goes on with it."""
    from codeagent.clock import new_uuid

    body = {"project_id": project, "title": title}
    _asked(data_dir, lambda client: _show(client.make("/v1/sessions", body, str(new_uuid()))))


@sessions.command("list")
def list_sessions(
    project: Annotated[str | None, typer.Option(help="Only those of this project.")] = None, data_dir: DataDir = None
) -> None:
    """One session a line: id, state, title."""

    def ask(client: Client) -> None:
        for item in _all(client, f"/v1/sessions?project_id={project}" if project else "/v1/sessions"):
            typer.echo(f"{item['id']}  {'closed' if item['closed'] else 'open'}  {item['title']}")

    _asked(data_dir, ask)


@sessions.command("show")
def show_session(session_id: Annotated[str, typer.Argument()], data_dir: DataDir = None) -> None:
    """A session as JSON, with its runs."""

    def ask(client: Client) -> None:
        session = client.get(f"/v1/sessions/{session_id}")
        _show({**session, "runs": list(_all(client, f"/v1/sessions/{session_id}/runs"))})

    _asked(data_dir, ask)
