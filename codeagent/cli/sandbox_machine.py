"""What operators see and do on the machine of a sandbox worker: its workspaces, and the end of what runs in them."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from codeagent.cli.connected import FAILED, USAGE
from codeagent.cli.sandbox_pods import are_pods, pod_rows
from codeagent.errors import CodeAgentError
from codeagent.sandboxes.bwrap import BubblewrapDriver
from codeagent.sandboxes.kubernetes import OWNER, KubernetesDriver
from codeagent.sandboxes.local import LocalDriver
from codeagent.sandboxes.notes import Notes
from codeagent.sandboxes.protocol import IsolationLevel, SandboxUnavailable
from codeagent.sandboxes.runsc import RunscDriver, bundles_of, remove_bundles
from codeagent.sandboxes.survey import Found, Survey, survey

OBEYED_SECONDS = 15.0
"""How long a worker may take to end what it was asked to: it looks twice a second, and the kernel may be slow."""


def state_directory(given: Path | None, data_dir: Path) -> Path:
    """The one that is meant: as given, else that of the environment, else that of this machine's system, else the
    default."""
    if given is not None:
        return given.absolute()
    if told := os.environ.get("CODEAGENT_SANDBOX_DIR"):
        return Path(told)
    from codeagent.settings import Settings

    own = data_dir / "sandboxes"
    return own if own.is_dir() else Path(Settings.model_fields["sandbox_dir"].default)


def _told(status: int, *lines: str) -> int:
    for line in lines:
        sys.stderr.write(f"codeagent: {line}\n")
    return status


def list_workspaces(state_dir: Path, *, as_json: bool) -> int:
    """Those of this machine, and where they are pods, all of the cluster's namespace."""
    now, rows = datetime.now(UTC), []
    try:
        if are_pods(state_dir):
            rows += pod_rows(state_dir, now)
        if state_dir.is_dir() or not are_pods(state_dir):
            seen = survey(state_dir)
            rows += [_row(found, seen, now) for found in seen.workspaces]
    except CodeAgentError as error:
        return _told(FAILED, *(error.reasons if isinstance(error, SandboxUnavailable) else (error.detail,)))
    if as_json:
        for row in rows:
            sys.stdout.write(json.dumps(row) + "\n")
    else:
        _write_table(rows)
    return 0


def _write_table(rows: Sequence[dict[str, Any]]) -> None:
    widest = max([22, *(len(row["workspace"]) for row in rows)])
    line = f"{{workspace:{widest}}} "
    line += "{state:9} {run_id:31} {tenant_id:31} {slot:>7} {age:>8} {size:>9} {processes:>5}\n"
    columns = ("workspace", "state", "run_id", "tenant_id", "slot", "age", "size", "processes")
    sys.stdout.write(line.format(**{name: name.removesuffix("_id").upper()[:9] for name in columns}))
    for row in rows:
        age, size = f"{row['age_seconds']:.0f}s", "-" if row["size_bytes"] is None else f"{row['size_bytes'] >> 10}K"
        shown = {name: "-" if row.get(name) is None else row[name] for name in columns if name in row}
        sys.stdout.write(line.format(**{**shown, "age": age, "size": size}))


def _row(found: Found, seen: Survey, now: datetime) -> dict[str, Any]:
    """`state`: `working`, `idle`, `opening` where its worker has not noted it yet, `left` where its worker is gone."""
    note = found.note
    state = "left" if not seen.live else "opening" if note is None else note.state
    return {
        "workspace": found.name,
        "state": state,
        "run_id": note and note.run_id,
        "tenant_id": note and note.tenant_id,
        "operation": (note and note.operation) or None,
        "driver": note and note.driver,
        "level": note and note.level,
        "worker_pid": note and note.worker_pid,
        "slot": found.slot_uid,
        "age_seconds": round((now - found.made_at).total_seconds(), 1),
        "size_bytes": found.size_bytes,
        "processes": len(found.pids),
    }


def run_of(state_dir: Path, named: str) -> str:
    """The run of a workspace's name; anything else is a run's id."""
    return next((note.run_id for note in Notes(state_dir).all() if note.workspace == named), named)


def kill(state_dir: Path, named: str, *, wait: Callable[[float], None] = time.sleep) -> int:
    """Has the worker end what runs in a workspace. Returns when it has."""
    try:
        seen, notes = survey(state_dir), Notes(state_dir)
        chosen = [note for note in notes.all() if named in (note.workspace, note.run_id)]
        if not seen.live:
            return _told(FAILED, f"no worker has {state_dir}; `codeagent sandbox recover` removes what one has left")
        if not chosen:
            return _told(USAGE, f"there is no workspace of {named}; `codeagent sandbox list` shows those there are")
        [note] = chosen
        notes.ask_to_end(note.workspace, f"operator:{os.environ.get('SUDO_UID', os.getuid())}")
        deadline = time.monotonic() + OBEYED_SECONDS
        while notes.asked(note.workspace) or (note.workspace, note.opened_at) in _noted(notes):
            if time.monotonic() > deadline:
                return _told(FAILED, f"the worker has not ended {note.workspace} within {OBEYED_SECONDS:g} s")
            wait(0.05)
    except SandboxUnavailable as error:
        return _told(FAILED, *error.reasons)
    except OSError as error:
        return _told(FAILED, f"{error.filename}: {error.strerror}")
    ended = f"ended {note.operation}" if note.state == "working" else "nothing ran"
    sys.stdout.write(f"{note.workspace} of {note.run_id}: {ended}, its workspace is removed\n")
    return 0


def _noted(notes: Notes) -> set[tuple[str, str]]:
    return {(note.workspace, note.opened_at) for note in notes.all()}


def recover(state_dir: Path, *, as_json: bool) -> int:
    """Removes all that a worker which died has left. Refuses while one lives."""
    try:
        before = survey(state_dir)
        if before.live:
            return _told(FAILED, f"{state_dir} belongs to a worker that lives: stop it first")
        asyncio.run(reap(state_dir))
        pods = asyncio.run(reap_pods(state_dir))
        after = survey(state_dir)
    except CodeAgentError as error:
        return _told(FAILED, *(error.reasons if isinstance(error, SandboxUnavailable) else (error.detail,)))
    removed = {
        "workspaces": len(before.workspaces) - len(after.workspaces),
        "processes": before.processes - after.processes,
        "mounts": before.mounted - after.mounted,
        "groups": before.groups - after.groups,
        "bundles": before.bundles - after.bundles,
        "pods": pods,
    }
    if as_json:
        sys.stdout.write(json.dumps({"removed": removed, "left": len(after.workspaces)}) + "\n")
    else:
        for found in before.workspaces:
            of = found.note.run_id if found.note is not None else "no known run"
            sys.stdout.write(f"{found.name} of {of}: {len(found.pids)} processes\n")
        sys.stdout.write("removed " + ", ".join(f"{count} {name}" for name, count in removed.items()) + "\n")
    return FAILED if after.workspaces or after.bundles else 0


async def reap_pods(state_dir: Path) -> int:
    """Removes the pods that a worker which died has left in its cluster, and tells their number. Raises
    `CodeAgentError` where there may be some and the cluster cannot be asked."""
    if not (state_dir / OWNER).exists():
        return 0
    from codeagent.cli.sandbox_host import cluster_of, configured

    cluster = cluster_of(configured())
    if lacks := cluster.missing():
        raise SandboxUnavailable(["pods may be left in a cluster", *lacks])
    driver = KubernetesDriver(state_dir, cluster)
    try:
        return await driver.reap(frozenset())
    finally:
        await driver.shutdown()


async def reap(state_dir: Path) -> None:
    """Ends and removes all that a worker which died has left there. Raises `SandboxUnavailable`."""
    # Where its sandboxes were pods, this machine may have no bubblewrap.
    if (state_dir / "workspaces").exists() or not (state_dir / OWNER).exists():
        driver = _removing(state_dir)
        try:
            await driver.reap(frozenset())
            # Whichever driver this is, it holds the directory now.
            await asyncio.to_thread(remove_bundles, state_dir)
        finally:
            await driver.shutdown()
    await asyncio.to_thread(Notes(state_dir).prepare)


def _removing(state_dir: Path) -> LocalDriver:
    """A driver that finds what any has left. Where there was gVisor, there may be no bubblewrap."""
    if bundles_of(state_dir).exists() and shutil.which("bwrap") is None:
        return RunscDriver(state_dir)
    return BubblewrapDriver(state_dir, IsolationLevel.KERNEL if os.geteuid() == 0 else IsolationLevel.RLIMIT)
