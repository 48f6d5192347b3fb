"""What every test with a real sandbox uses: archives, a collecting sink, and the check that this machine can do it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from codeagent.sandboxes import archives
from codeagent.sandboxes.bwrap import BubblewrapDriver
from codeagent.sandboxes.protocol import ExecRecord, ExecSpec, Limits, Workspace
from tests.conftest import unavailable

LIMITS = Limits(wall_seconds=20.0, workspace_bytes=64 << 20, workspace_inodes=5000, tmp_bytes=32 << 20)


def require_root_and_bwrap() -> None:
    if os.geteuid() != 0:
        unavailable("sandboxes of level KERNEL need root")
    if shutil.which("bwrap") is None:
        unavailable("bubblewrap is not installed")


def require_root_and_runsc() -> None:
    if os.geteuid() != 0:
        unavailable("sandboxes of level OWN_KERNEL need root")
    if shutil.which("runsc") is None:
        unavailable("runsc is not installed: make setup-gvisor")


class Collected:
    """A sink that keeps what it is given, by stream."""

    def __init__(self) -> None:
        self.pieces: dict[str, bytes] = {"stdout": b"", "stderr": b""}

    async def __call__(self, stream: str, piece: bytes) -> None:
        self.pieces[stream] += piece


async def ignore(_stream: str, _piece: bytes) -> None:
    pass


def archive(folder: Path, files: Mapping[str, bytes] | None = None) -> Path:
    path = folder / "workspace.tar.gz"
    archives.pack_files(files or {}, path, LIMITS)
    return path


async def run(
    driver: BubblewrapDriver, workspace: Workspace, argv: Iterable[str], limits: Limits = LIMITS, **more: object
) -> ExecRecord:
    return await driver.run(workspace, ExecSpec(tuple(argv), limits=limits, **more), ignore)  # type: ignore[arg-type]


async def shell(driver: BubblewrapDriver, workspace: Workspace, script: str, limits: Limits = LIMITS) -> ExecRecord:
    return await run(driver, workspace, ("sh", "-c", script), limits)


async def python(driver: BubblewrapDriver, workspace: Workspace, program: str, limits: Limits = LIMITS) -> ExecRecord:
    return await run(driver, workspace, ("python3", "-I", "-c", program), limits)


def slot_of(workspace: Workspace) -> int:
    return workspace.slot_uid  # type: ignore[attr-defined, no-any-return]


def processes_of(uid: int) -> list[int]:
    """Pids that run as `uid`; those that have ended and only wait to be waited for do not count, nor does a sandbox that
    waits for its command: it cannot be dumped, so its directory is root's."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and entry.stat().st_uid == uid:
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                found += [int(entry.name)] if state != "Z" else []
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found
