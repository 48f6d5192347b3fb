"""A program for a user who is not root: takes the weaker level by asking for it, and prints what came of it.

Argument: a directory the user may write to.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from pathlib import Path

from codeagent.sandboxes import archives
from codeagent.sandboxes.bwrap import BubblewrapDriver
from codeagent.sandboxes.protocol import ExecSpec, IsolationLevel, Limits, SandboxUnavailable, Workspace

LIMITS = replace(Limits(), processes=10, memory_bytes=200 << 20, wall_seconds=10.0)
FORKS = """
import os, time
held = 0
for _ in range(40):
    try:
        if os.fork() == 0:
            time.sleep(5)
            os._exit(0)
        held += 1
    except OSError:
        break
print(held)
"""


async def ignore(_stream: str, _piece: bytes) -> None:
    pass


async def say(driver: BubblewrapDriver, workspace: Workspace, *argv: str, limits: Limits = LIMITS) -> None:
    record = await driver.run(workspace, ExecSpec(argv, limits=limits), ignore)
    print(record.level.name, record.reason, record.stdout, record.stderr[-12:])


async def main() -> None:
    root = Path(sys.argv[1])
    try:
        await BubblewrapDriver(root / "kernel").probe()
    except SandboxUnavailable as unavailable:
        print(unavailable.reasons[0].split(":")[0])
    driver = BubblewrapDriver(root / "state", IsolationLevel.RLIMIT)
    print(all((await driver.probe()).facts.values()))
    archives.pack_files({"README": b"x\n"}, root / "a.tar.gz", LIMITS)
    workspace = await driver.open("w", root / "a.tar.gz", b"", LIMITS)
    await say(driver, workspace, "sh", "-c", "echo y > README; mkdir -p a/b; touch a/b/c; id -u")
    print((await driver.diff(workspace, LIMITS)).files)
    await say(driver, workspace, "python3", "-c", FORKS)
    await say(driver, workspace, "python3", "-c", "x = bytearray(400 << 20)")
    stubborn = "setsid sleep 61 & mkdir -p x/y; chmod 0 x; sleep 62"
    await say(driver, workspace, "sh", "-c", stubborn, limits=replace(LIMITS, wall_seconds=0.5))
    await driver.shutdown()
    print(list((root / "state" / "workspaces").iterdir()))


if __name__ == "__main__":
    asyncio.run(main())
