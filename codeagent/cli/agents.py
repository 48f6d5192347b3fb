"""`codeagent agents`: agents from files, in versions, and which one runs are given."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlencode

import typer

from codeagent.cli.connected import USAGE, DataDir, connected, failure

if TYPE_CHECKING:
    from codeagent.cli.client import Client

app = typer.Typer(
    no_args_is_help=True,
    help="Agents and their versions. A FILE is YAML or JSON with name and description, instructions, model, "
    "fallbacks, tools, limits, approvals, egress, mcp, cache and delegates, each but the name optional.",
)
OF_THE_AGENT = frozenset({"name", "description"})
OUTCOMES = ("submitted", "succeeded", "failed", "canceled", "excused")
FIGURES = (
    "success_rate",
    "steps",
    "input_tokens",
    "output_tokens",
    "cost_usd",
    "cost_usd_p95",
    "duration_p50_seconds",
    "duration_p95_seconds",
    "tool_failures",
    "approvals_asked",
    "approvals_rejected",
)

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
    _shown_active(_changed(data_dir, name, f"versions/{number}/promote"))


@app.command()
def rollback(name: Name, data_dir: DataDir = None) -> None:
    """Give new runs the version again that they were given before the last promotion."""
    _shown_active(_changed(data_dir, name, "rollback"))


@app.command()
def canary(
    name: Name,
    number: Annotated[int, typer.Argument(min=1, help="Of the version.")],
    weight: Annotated[int | None, typer.Option(min=1, max=50, help="Percent of the runs; 10.")] = None,
    plan: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="YAML or JSON with weight, minimum_runs and bounds."),
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Give some of the new runs this version, until it is promoted, stopped, or rolled back for what they came to."""
    said = {} if plan is None else _mapping(plan)
    body = said if weight is None else {**said, "weight": weight}
    agent = _changed(data_dir, name, f"versions/{number}/canary", body)
    typer.echo(f"{name}@{number}\tcanary\t{agent['canary']['plan']['weight']} %")


@app.command()
def stop(name: Name, data_dir: DataDir = None) -> None:
    """Stop the agent's canary."""
    _shown_active(_changed(data_dir, name, "canary/stop"))


@app.command()
def stats(
    name: Name,
    version: Annotated[int | None, typer.Option(min=1, help="Only this version.")] = None,
    since: Annotated[str | None, typer.Option(help="First day of UTC; 29 before the last one.")] = None,
    until: Annotated[str | None, typer.Option(help="Last day; today.")] = None,
    data_dir: DataDir = None,
) -> None:
    """Show what the runs of each version came to, newest version first."""
    said = {"version": version, "since": since, "until": until}
    query = urlencode({key: value for key, value in said.items() if value is not None})
    path = f"/v1/agents/{name}/stats{'?' if query else ''}{query}"
    typer.echo("  ".join(("version", *OUTCOMES, *FIGURES)))
    with connected(data_dir) as edge:
        for found in edge.items(path):
            figures = [*(found["runs"][key] for key in OUTCOMES), *(found[key] for key in FIGURES)]
            typer.echo("  ".join((str(found["version"]), *("-" if each is None else str(each) for each in figures))))


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


def _changed(data_dir: Path | None, name: str, what: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """The agent after the change, which is decided on as it is now."""
    with connected(data_dir) as edge:
        decided_on = edge.call("GET", f"/v1/agents/{name}")["version"]
        return edge.call("POST", f"/v1/agents/{name}/{what}", body, {"If-Match": f'"{decided_on}"'})


def _shown_active(agent: dict[str, Any]) -> None:
    typer.echo(f"{agent['name']}@{agent['active_version']}\tactive")


def _mapping(file: Path) -> dict[str, Any]:
    """JSON is YAML, too."""
    import yaml

    try:
        said = yaml.safe_load(file.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise failure(f"{file}: {error}", USAGE) from None
    if not isinstance(said, dict):
        raise failure(f"{file}: no names with values", USAGE)
    return said


def _read(file: Path) -> dict[str, Any]:
    said = _mapping(file)
    if not isinstance(said.get("name"), str):
        raise failure(f"{file}: no agent, which has a name", USAGE)
    return said
