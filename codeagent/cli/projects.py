"""`codeagent projects` and `codeagent sessions`: what runs belong to, from the terminal."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from codeagent.cli.connected import DataDir, connected

projects = typer.Typer(no_args_is_help=True, help="Repositories and what their runs use.")
sessions = typer.Typer(no_args_is_help=True, help="Conversations: runs that follow each other.")


def _show(item: dict[str, Any]) -> None:
    typer.echo(json.dumps(item, indent=2))


@projects.command("create")
def create_project(
    name: Annotated[str, typer.Argument(help="Unique among the projects that are not archived.")],
    repository: Annotated[str, typer.Argument(help="https address of its git repository.")],
    ref: Annotated[str, typer.Option(help="Branch, tag or commit that runs begin with.")] = "HEAD",
    model: Annotated[str | None, typer.Option(help="Model of runs that name none.")] = None,
    image: Annotated[str, typer.Option(help="What its runs' commands see: an image of the installation.")] = "default",
    data_dir: DataDir = None,
) -> None:
    """Make a project and show it."""
    from codeagent.clock import new_uuid

    body = {"name": name, "repository": repository, "default_ref": ref, "model": model, "image": image}
    with connected(data_dir) as client:
        _show(client.make("/v1/projects", body, str(new_uuid())))


@projects.command("list")
def list_projects(data_dir: DataDir = None) -> None:
    """One project a line: id, name, repository."""
    with connected(data_dir) as client:
        for item in client.items("/v1/projects"):
            typer.echo(f"{item['id']}  {item['name']}  {item['repository']}")


@projects.command("show")
def show_project(project_id: Annotated[str, typer.Argument()], data_dir: DataDir = None) -> None:
    """A project as JSON."""
    with connected(data_dir) as client:
        _show(client.get(f"/v1/projects/{project_id}"))


@sessions.command("create")
def create_session(
    project: Annotated[str | None, typer.Option(help="Project whose its runs will be.")] = None,
    title: Annotated[str, typer.Option(help="What it is about.")] = "",
    data_dir: DataDir = None,
) -> None:
    """Begin a session and show it; `codeagent run --session` goes on with it."""
    from codeagent.clock import new_uuid

    body = {"project_id": project, "title": title}
    with connected(data_dir) as client:
        _show(client.make("/v1/sessions", body, str(new_uuid())))


@sessions.command("list")
def list_sessions(
    project: Annotated[str | None, typer.Option(help="Only those of this project.")] = None, data_dir: DataDir = None
) -> None:
    """One session a line: id, state, title."""
    with connected(data_dir) as client:
        for item in client.items(f"/v1/sessions?project_id={project}" if project else "/v1/sessions"):
            typer.echo(f"{item['id']}  {'closed' if item['closed'] else 'open'}  {item['title']}")


@sessions.command("show")
def show_session(session_id: Annotated[str, typer.Argument()], data_dir: DataDir = None) -> None:
    """A session as JSON, with its runs."""
    with connected(data_dir) as client:
        session = client.get(f"/v1/sessions/{session_id}")
        _show({**session, "runs": list(client.items(f"/v1/sessions/{session_id}/runs"))})
