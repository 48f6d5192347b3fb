"""`codeagent run`: upload, submit, watch, show the patch, apply it if asked."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from codeagent.cli.asking import Approver
from codeagent.cli.client import TERMINAL, ApiError, Client, ServerEvent
from codeagent.cli.connection import Connection
from codeagent.cli.pack import pack_tracked
from codeagent.cli.screen import Screen
from codeagent.clock import new_uuid

COMPLETED, FAILED, USAGE, NOT_DONE = 0, 1, 2, 3
STATUSES = {"run.completed": COMPLETED, "run.failed": FAILED, "run.canceled": NOT_DONE, "run.rejected": NOT_DONE}


class Usage(Exception):
    """What was asked for cannot be done as asked."""


@dataclass(frozen=True, slots=True)
class RunRequest:
    task: str
    repo: Path | None
    git_url: str | None
    ref: str
    model: str | None
    agent: str | None
    limits: dict[str, Any]
    project: str | None = None
    session: str | None = None
    ask: tuple[str, ...] = ()
    """Tools that a person is asked about before each call; `all` for those that may change files."""
    verify: str | None = None
    """The command that judges the patch."""
    protected: tuple[str, ...] = ()
    """What the patch may not change for it; empty for what the server protects by itself."""


def run_and_watch(connection: Connection, request: RunRequest, *, apply: bool, as_json: bool) -> int:
    """The exit status of the run. Ctrl-C cancels it, a second one leaves it to itself."""
    client = Client(connection)
    console = Console(stderr=as_json, highlight=False)
    try:
        body = _body(client, request)
        run = client.submit(body, str(new_uuid()))
        tell = _tell_as_json if as_json else Screen(console).show
        last = watch(client, run["id"], console, tell, interactive=not as_json)
        return _finish(client, request, last, console, apply=apply, as_json=as_json)
    except ApiError as error:
        console.print(f"[red]{error}[/]")
        return USAGE if 400 <= error.status < 500 else FAILED
    finally:
        client.close()


def _body(client: Client, request: RunRequest) -> dict[str, Any]:
    said = {
        "task": request.task,
        "source": _source(client, request),
        "agent": request.agent,
        "model": request.model,
        "limits": request.limits or None,
        "project_id": request.project,
        "session_id": request.session,
        "approvals": _approvals(request.ask),
        "verification": _verification(request),
    }
    return {name: value for name, value in said.items() if value is not None}


def _approvals(ask: tuple[str, ...]) -> dict[str, Any] | None:
    return {"tools": "all_changing" if "all" in ask else list(ask)} if ask else None


def _verification(request: RunRequest) -> dict[str, Any] | None:
    if request.verify is None:
        return None
    return {"command": request.verify} | ({"protected": list(request.protected)} if request.protected else {})


def _source(client: Client, request: RunRequest) -> dict[str, Any] | None:
    """None where the project or the session has one."""
    if request.git_url is not None:
        return {"kind": "git", "url": request.git_url, "ref": request.ref}
    if request.repo is None:
        return None
    if not request.repo.is_dir():
        raise Usage(f"{request.repo} is not a directory")
    with tempfile.TemporaryDirectory(prefix="codeagent-run-") as folder:
        archive = Path(folder) / "source.tar.gz"
        pack_tracked(request.repo, archive)
        return {"kind": "archive", "digest": client.upload(archive)}


def watch(
    client: Client, run_id: str, console: Console, tell: Callable[[ServerEvent], None], *, interactive: bool
) -> ServerEvent:
    """Follows a run to its end, which it returns. Ctrl-C cancels it, a second one leaves it to itself. What it asks can
    be answered where it is `interactive` and somebody is there."""
    interactive = interactive and sys.stdin.isatty() and console.is_terminal
    approver = Approver(client, console, interactive=interactive)
    canceled = False
    events = client.follow(run_id)
    last: ServerEvent | None = None
    while True:
        try:
            for event in events:
                tell(event)
                if event.name == "run.input_required":
                    approver.asked(run_id, event.data["data"]["request"]["approval_id"])
                if event.name in TERMINAL:
                    last = event
            break
        except KeyboardInterrupt:
            if canceled:
                raise
            canceled = True
            console.print("[yellow]canceling; once more to leave[/]")
            client.cancel(run_id)
            events = client.follow(run_id)
    if last is None:
        raise ApiError(0, "stream_ended", "the stream ended without the run's end")
    return last


def _tell_as_json(event: ServerEvent) -> None:
    sys.stdout.write(json.dumps({"event": event.name, "id": event.id, "data": event.data}) + "\n")
    sys.stdout.flush()


def _finish(
    client: Client, request: RunRequest, last: ServerEvent, console: Console, *, apply: bool, as_json: bool
) -> int:
    status = STATUSES[last.name]
    text = patch_of(client, last)
    if not as_json:
        show_patch(console, text)
    if text is None:
        return status
    if apply and status == COMPLETED and request.repo is not None:
        apply_patch(request.repo, text)
        console.print(f"[green]applied to {request.repo}[/]")
    return status


def patch_of(client: Client, last: ServerEvent) -> bytes | None:
    """What a run has changed, as its end tells."""
    patch = last.data["data"].get("patch")
    return None if patch is None else client.artifact(patch["digest"])


def show_patch(console: Console, patch: bytes | None) -> None:
    if patch is None:
        console.print("[dim]no changes[/]")
    else:
        Screen(console).patch(patch.decode(errors="replace"))


def apply_patch(repo: Path, patch: bytes) -> None:
    """Applies a patch to a directory, all of it or nothing. Raises `Usage` when it does not fit."""
    command = ["git", "-c", "core.hooksPath=/dev/null", "apply", "--whitespace=nowarn", "-"]
    done = subprocess.run(command, input=patch, cwd=repo, capture_output=True, check=False)
    if done.returncode != 0:
        raise Usage(f"the patch does not apply: {done.stderr.decode(errors='replace').strip()}")
