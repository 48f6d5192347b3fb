"""The `codeagent` command. Each command imports what it needs when it runs, so that help comes at once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from codeagent.cli.agents import app as agents
from codeagent.cli.approvals import app as approvals
from codeagent.cli.audit import app as audit
from codeagent.cli.calls import show_calls
from codeagent.cli.config import app as config
from codeagent.cli.connected import USAGE, DataDir, directory, failure
from codeagent.cli.database import app as db
from codeagent.cli.dead_letters import app as dlq
from codeagent.cli.doctor import doctor
from codeagent.cli.events import app as events_app
from codeagent.cli.installation import admin, auth, topics
from codeagent.cli.kek import app as kek
from codeagent.cli.mcp import app as mcp
from codeagent.cli.privacy import app as privacy
from codeagent.cli.projections import app as projections_app
from codeagent.cli.projects import projects, sessions
from codeagent.cli.providers import app as providers_app
from codeagent.cli.replay import replay
from codeagent.cli.sandbox import app as sandbox
from codeagent.cli.usage import show_usage

MACHINE, WORK, OPERATE = "On this machine", "Work", "Operate"
app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Run coding agents on your own machines.",
)
keys = typer.Typer(invoke_without_command=True)
app.add_typer(agents, name="agents", rich_help_panel=WORK)
app.add_typer(db, name="db", rich_help_panel=OPERATE)
app.add_typer(keys, name="key", rich_help_panel=OPERATE)
app.add_typer(topics, name="topics", rich_help_panel=OPERATE)
app.add_typer(sandbox, name="sandbox", rich_help_panel=OPERATE)
app.add_typer(dlq, name="dlq", rich_help_panel=OPERATE)
app.add_typer(config, name="config", rich_help_panel=OPERATE)
app.add_typer(kek, name="kek", rich_help_panel=OPERATE)
app.add_typer(mcp, name="mcp", rich_help_panel=OPERATE)
app.add_typer(approvals, name="approvals", rich_help_panel=WORK)
app.add_typer(admin, name="admin", rich_help_panel=OPERATE)
app.add_typer(audit, name="audit", rich_help_panel=OPERATE)
app.add_typer(auth, name="auth", rich_help_panel=OPERATE)
app.add_typer(privacy, name="privacy", rich_help_panel=OPERATE)
app.add_typer(events_app, name="events", rich_help_panel=OPERATE)
app.add_typer(projections_app, name="projections", rich_help_panel=OPERATE)
app.add_typer(projects, name="projects", rich_help_panel=WORK)
app.add_typer(providers_app, name="providers", rich_help_panel=OPERATE)
app.add_typer(sessions, name="sessions", rich_help_panel=WORK)
app.command("calls", rich_help_panel=WORK)(show_calls)
app.command("replay", rich_help_panel=WORK)(replay)
app.command("usage", rich_help_panel=WORK)(show_usage)
app.command("doctor", rich_help_panel=MACHINE)(doctor)


@app.command(rich_help_panel=MACHINE)
def up(
    data_dir: DataDir = None,
    port: Annotated[int, typer.Option(help="Port of the API; 0 takes the last one used, or any free one.")] = 0,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    allow_level: Annotated[
        int, typer.Option(min=1, max=3, help="Weakest sandbox level to accept: 1, 2 (default) or 3.")
    ] = 2,
    providers: Annotated[Path | None, typer.Option(help="JSON list of model providers.")] = None,
    model: Annotated[str, typer.Option(help="Model of runs that name none.")] = "builtin/repair",
) -> None:
    """Run everything on this machine until SIGTERM or Ctrl-C."""
    from codeagent.cli.consent import notice
    from codeagent.cli.up import Ready, System
    from codeagent.cli.up_settings import UpOptions
    from codeagent.errors import CodeAgentError
    from codeagent.settings import Misconfigured

    folder = directory(data_dir)
    options = UpOptions(folder, host, port, allow_level, providers and providers.absolute(), model)

    def ready(system: Ready) -> None:
        if said := notice(system.level):
            typer.echo(said)
        typer.echo(f"CodeAgent is ready: {system.url}")
        typer.echo(f"Key and address are in {folder / 'connection.json'}; stop with Ctrl-C.")
        sys.stdout.flush()

    try:
        status = System(options).serve(ready)
    except Misconfigured as error:
        raise failure(error.detail, USAGE) from None
    except CodeAgentError as error:
        raise failure(error.detail) from None
    raise typer.Exit(status)


@app.command(rich_help_panel=WORK)
def run(
    task: Annotated[str, typer.Argument(help="What to do.")],
    repo: Annotated[Path | None, typer.Option(help="Repository to work on; its tracked files are uploaded.")] = None,
    git_url: Annotated[str | None, typer.Option(help="Public https repository to work on instead.")] = None,
    ref: Annotated[str, typer.Option(help="Branch, tag or commit of --git-url.")] = "HEAD",
    model: Annotated[str | None, typer.Option(help="As in builtin/repair or openai/gpt-5.")] = None,
    agent: Annotated[str | None, typer.Option(help="Agent that does it, as in coder or reviewer@3.")] = None,
    project: Annotated[str | None, typer.Option(help="Project whose run it is; its repository, unless given.")] = None,
    session: Annotated[str | None, typer.Option(help="Session that it goes on with, files and words.")] = None,
    max_steps: Annotated[int | None, typer.Option(help="Model calls at most.")] = None,
    max_cost_usd: Annotated[str | None, typer.Option(help="What it may cost.")] = None,
    deadline_seconds: Annotated[int | None, typer.Option(help="How long it may take.")] = None,
    ask: Annotated[
        list[str] | None,
        typer.Option(help="Tool that waits for your approval, as in shell; all for those that may change files."),
    ] = None,
    verify_with: Annotated[str | None, typer.Option("--verify", help="Command that judges the patch.")] = None,
    protect: Annotated[list[str] | None, typer.Option(help="Files that the patch may not change for it.")] = None,
    apply: Annotated[bool, typer.Option("--apply", help="Apply the patch to the repository.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One event a line, nothing else.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Start a run, watch it, show the patch.

    Exit status: 0 completed, 1 failed, 2 usage, 3 rejected or canceled.
    """
    from codeagent.cli.connection import NotConnected, find_connection
    from codeagent.cli.run import RunRequest, Usage, run_and_watch

    if repo is not None and git_url is not None:
        raise failure("give --repo or --git-url, not both", USAGE)
    if repo is None and git_url is None and project is None and session is None:
        raise failure("give --repo, --git-url, --project or --session", USAGE)
    if apply and repo is None:
        raise failure("--apply needs --repo", USAGE)
    if protect and verify_with is None:
        raise failure("--protect needs --verify", USAGE)
    limits = {"max_steps": max_steps, "max_cost_usd": max_cost_usd, "deadline_seconds": deadline_seconds}
    request = RunRequest(
        task,
        repo,
        git_url,
        ref,
        model,
        agent,
        {name: value for name, value in limits.items() if value is not None},
        project,
        session,
        tuple(ask or ()),
        verify_with,
        tuple(protect or ()),
    )
    try:
        connection = find_connection(directory(data_dir))
        raise typer.Exit(run_and_watch(connection, request, apply=apply, as_json=as_json))
    except (NotConnected, Usage) as error:
        raise failure(str(error), USAGE) from None


@app.command(rich_help_panel=OPERATE)
def verify(
    run_id: Annotated[str, typer.Argument(help="The run, as in run_01jd...")],
    data_dir: DataDir = None,
) -> None:
    """Check every stored event of a run against its hashes. Exits 1 and names what does not hold."""
    from codeagent.cli.operate import verify_run

    raise typer.Exit(verify_run(directory(data_dir), run_id))


@app.command(rich_help_panel=OPERATE)
def serve(
    role: Annotated[str, typer.Argument(help="edge, agent-worker, provider-worker, sandbox-worker, relay")],
) -> None:
    """Run one process of the system, configured by CODEAGENT_* variables."""
    from codeagent.cli.configuration import examine, tell
    from codeagent.cli.process import Process, run_process
    from codeagent.cli.services import ROLES
    from codeagent.settings import Misconfigured
    from codeagent.telemetry.logs import configure_logs

    async def build() -> Process:
        configuration = await examine(role)
        settings = configuration.usable()
        configure_logs(role, settings.log_level)
        tell(configuration.warnings)
        return await ROLES[role](settings, None)

    if role not in ROLES:
        raise failure(f"there is no role {role!r}; roles: {', '.join(ROLES)}", USAGE)
    try:
        status = run_process(build)
    except Misconfigured as error:
        raise failure(error.detail, USAGE) from None
    raise typer.Exit(status)


@app.command(
    rich_help_panel=OPERATE,
    add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def sandboxd(context: typer.Context) -> None:
    """Make sandboxes for the unprivileged worker of this machine. The one process that needs root."""
    from codeagent.cli.sandboxd import become_sandboxd

    become_sandboxd(context.args)


@keys.callback()
def key(context: typer.Context) -> None:
    """Make an API key and its entry for CODEAGENT_API_KEYS_FILE. The key is shown this once."""
    if context.invoked_subcommand is not None:
        return
    import json

    from codeagent.clock import new_uuid
    from codeagent.identity.keys import digest_of_key, new_key
    from codeagent.messages.ids import typed_id

    made = new_key()
    entry = {
        "key_id": typed_id("key", new_uuid()),
        "sha256": digest_of_key(made),
        "tenant_id": typed_id("ten", new_uuid()),
        "principal_id": typed_id("usr", new_uuid()),
    }
    typer.echo(json.dumps({"api_key": made, "entry": entry}, indent=2))


@keys.command("create")
def key_create(
    tenant: Annotated[str, typer.Option(help="Id of the tenant.")],
    principal: Annotated[str, typer.Option(help="Id of the user or service that the key acts for.")],
    scopes: Annotated[str, typer.Option(help='What it may do, as in "runs:read runs:write".')],
    name: Annotated[str, typer.Option(help="What it is for.")] = "made by an operator",
    days: Annotated[int, typer.Option(min=1, help="After how many days it ends.")] = 90,
    network: Annotated[list[str] | None, typer.Option(help="From where it may be used; repeatable.")] = None,
    data_dir: DataDir = None,
) -> None:
    """Make an API key in the database, where all edges know it at once. The key is shown this once."""
    from codeagent.cli.operate import NewKey, create_key

    wanted = NewKey(tenant, principal, scopes, name, days, tuple(network or ()))
    raise typer.Exit(create_key(data_dir, wanted))


@app.command(rich_help_panel=OPERATE)
def schemas(folder: Annotated[Path, typer.Argument(help="Where to write them.")]) -> None:
    """Write JSON Schemas, OpenAPI and AsyncAPI."""
    from codeagent.cli.schemas import write_schemas

    write_schemas(folder)


@app.command(rich_help_panel=MACHINE)
def demo(
    repo: Annotated[Path, typer.Argument(help="A repository with a failing test.")],
    data_dir: DataDir = None,
    allow_level: Annotated[int, typer.Option(min=1, max=3)] = 2,
) -> None:
    """Start everything, repair a repository, check the result, stop."""
    from codeagent.cli.demo import play

    raise typer.Exit(play(repo.absolute(), data_dir and data_dir.absolute(), allow_level))
