"""`codeagent agents`: agents from files, in versions, and which one runs are given."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from codeagent.cli.connected import USAGE, DataDir, connected, failure

if TYPE_CHECKING:
    from codeagent.cli.client import Client

app = typer.Typer(
    no_args_is_help=True,
    help="Agents and their versions. A FILE is YAML or JSON with name and description, instructions, model, tools, "
    "limits and approvals, each but the name optional.",
)
OF_THE_AGENT = frozenset({"name", "description"})

Name = Annotated[str, typer.Argument(help="Of the agent.")]
File = Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="Says what the agent is.")]


@app.command("list")
def list_agents(data_dir: DataDir = None) -> None:
    """List agents with their active and their latest version."""
    with connected(data_dir) as edge:
        for agent in edge.items("/v1/agents"):
            active = "-" if agent["active_version"] is None else agent["active_version"]
            typer.echo(f"{agent['name']}\t{active}/{agent['latest_version']}\t{agent['description']}")


@app.command()
def show(name: Name, data_dir: DataDir = None) -> None:
    """Show an agent and its newest versions, as YAML."""
    import yaml

    with connected(data_dir) as edge:
        versions = edge.call("GET", f"/v1/agents/{name}/versions")["items"]
        typer.echo(yaml.safe_dump({**edge.call("GET", f"/v1/agents/{name}"), "versions": versions}, sort_keys=False))


@app.command()
def create(file: File, data_dir: DataDir = None) -> None:
    """Define an agent, with a first version: a draft until it is promoted."""
    said = _read(file)
    with connected(data_dir) as edge:
        _make_agent(edge, said)
        _make_version(edge, said)


@app.command()
def version(file: File, data_dir: DataDir = None) -> None:
    """Make the agent's next version: a draft until it is promoted."""
    with connected(data_dir) as edge:
        _make_version(edge, _read(file))


@app.command()
def promote(
    name: Name, number: Annotated[int, typer.Argument(min=1, help="Of the version.")], data_dir: DataDir = None
) -> None:
    """Give new runs this version from now on."""
    _move(data_dir, name, f"versions/{number}/promote")


@app.command()
def rollback(name: Name, data_dir: DataDir = None) -> None:
    """Give new runs the version again that they were given before the last promotion."""
    _move(data_dir, name, "rollback")


def _make_agent(edge: Client, said: dict[str, Any]) -> None:
    """An agent without any version is what a former `create` left whose version was refused: it is gone on with."""
    from codeagent.cli.client import ApiError

    try:
        _post(edge, "/v1/agents", {key: said[key] for key in OF_THE_AGENT & said.keys()})
    except ApiError as error:
        if error.code != "conflict" or edge.call("GET", f"/v1/agents/{said['name']}")["latest_version"]:
            raise


def _make_version(edge: Client, said: dict[str, Any]) -> None:
    content = {key: value for key, value in said.items() if key not in OF_THE_AGENT}
    made = _post(edge, f"/v1/agents/{said['name']}/versions", content)
    typer.echo(f"{made['agent']}@{made['number']}\t{made['state']}\t{made['digest']}")


def _post(edge: Client, path: str, body: dict[str, Any]) -> dict[str, Any]:
    from codeagent.clock import new_uuid

    return edge.call("POST", path, body, {"Idempotency-Key": f'"{new_uuid()}"'})


def _move(data_dir: Path | None, name: str, what: str) -> None:
    with connected(data_dir) as edge:
        decided_on = edge.call("GET", f"/v1/agents/{name}")["version"]
        agent = edge.call("POST", f"/v1/agents/{name}/{what}", headers={"If-Match": f'"{decided_on}"'})
        typer.echo(f"{agent['name']}@{agent['active_version']}\tactive")


def _read(file: Path) -> dict[str, Any]:
    """JSON is YAML, too."""
    import yaml

    try:
        said = yaml.safe_load(file.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise failure(f"{file}: {error}", USAGE) from None
    if not isinstance(said, dict) or not isinstance(said.get("name"), str):
        raise failure(f"{file}: no agent, which has a name", USAGE)
    return said
