"""`codeagent sandbox`: single commands in sandboxes, and the workspaces of this machine's worker, for operators."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from codeagent.cli.connected import DataDir, connected, directory

app = typer.Typer(no_args_is_help=True, help="Sandboxes, for operators.")

StateDir = Annotated[
    Path | None,
    typer.Option(help="The worker's directory; else CODEAGENT_SANDBOX_DIR, or that of this machine's system."),
]
Named = Annotated[str, typer.Argument(metavar="RUN_OR_WORKSPACE", help="Id of a run, or name of its workspace.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON.")]


@app.command("exec", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def exec_(
    command: Annotated[list[str], typer.Argument(help="The command, after --.")],
    workspace: Annotated[Path | None, typer.Option(help="Directory to copy in as /workspace.")] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds; 60 unless given.")] = None,
    limit: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="As in memory_bytes=512M.")] = None,
    env: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="A variable of the command.")] = None,
    image: Annotated[str, typer.Option(help="What it sees: default, or one of CODEAGENT_SANDBOX_IMAGES.")] = "default",
    driver: Annotated[str, typer.Option(help="auto, or the only driver that will do.")] = "auto",
    allow_level: Annotated[int, typer.Option(min=1, max=3, help="Weakest level to accept.")] = 2,
    state_dir: Annotated[Path | None, typer.Option(help="Where runtimes are kept from one time to the next.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One record as the last line.")] = False,
) -> None:
    """Run a command in a sandbox of its own, without any server. Nothing is left behind.

    Exits as the command did, with 128 + n where signal n ended it; 124 after a timeout, 137 where a limit ended it,
    130 or 143 where SIGINT or SIGTERM has canceled it, 125 when it did not run, 2 for a wrong option.
    """
    from codeagent.cli.sandbox_exec import ExecRequest, exec_in_sandbox

    request = ExecRequest(
        tuple(command), workspace, timeout, tuple(limit or ()), tuple(env or ()), allow_level, driver, state_dir, image
    )
    raise typer.Exit(exec_in_sandbox(request, as_json=as_json))


@app.command("list")
def list_(state_dir: StateDir = None, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Show the workspaces of this machine's worker, and those that one has left: one a line."""
    from codeagent.cli.sandbox_machine import list_workspaces, state_directory

    raise typer.Exit(list_workspaces(state_directory(state_dir, directory(data_dir)), as_json=as_json))


@app.command()
def logs(
    named: Named,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until the run has ended.")] = False,
    state_dir: StateDir = None,
    data_dir: DataDir = None,
) -> None:
    """Show a run's commands with their output and how they ended, as the running system has them in its log."""
    from codeagent.cli.sandbox_logs import show_commands
    from codeagent.cli.sandbox_machine import run_of, state_directory

    run_id = run_of(state_directory(state_dir, directory(data_dir)), named)
    with connected(data_dir) as client:
        show_commands(client, run_id, follow=follow)


@app.command()
def kill(named: Named, state_dir: StateDir = None, data_dir: DataDir = None) -> None:
    """End what runs in a workspace now, and remove the workspace.

    The log says who asked. The run goes on from the checkpoint before, told that its command was killed.
    """
    from codeagent.cli.sandbox_machine import kill as end
    from codeagent.cli.sandbox_machine import state_directory

    raise typer.Exit(end(state_directory(state_dir, directory(data_dir)), named))


@app.command()
def recover(state_dir: StateDir = None, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Remove what a worker that died has left: processes, mounts, groups, directories. Refuses while one lives."""
    from codeagent.cli.sandbox_machine import recover as remove
    from codeagent.cli.sandbox_machine import state_directory

    raise typer.Exit(remove(state_directory(state_dir, directory(data_dir)), as_json=as_json))
