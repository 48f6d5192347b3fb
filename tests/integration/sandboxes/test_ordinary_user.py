"""Level RLIMIT, for a user who is not root: what it still holds, and that it never comes by itself."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyseccomp
import pytest

import codeagent
from codeagent.sandboxes import runtime
from codeagent.sandboxes.processes import strays
from codeagent.sandboxes.rootfs import open_up

PROGRAM = Path(__file__).with_name("ordinary_user.py")
NOBODY = 65534


@pytest.fixture
def folder(state_dir: Path) -> Iterator[Path]:
    """A directory of that user's own, with copies of the programs it needs."""
    directory = Path(tempfile.mkdtemp(prefix="codeagent-ordinary-"))
    package = Path(codeagent.__file__).parent
    shutil.copytree(package, directory / "lib" / "codeagent", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(pyseccomp.__file__, directory / "lib")
    shutil.copy(PROGRAM, directory)
    open_up(directory)
    directory.chmod(0o777)
    yield directory
    shutil.rmtree(directory)


def as_nobody(state_dir: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Runs Python as another user, from the copy of this interpreter that sandboxes get."""
    prepared = runtime.prepare(state_dir / "runtime")
    root = prepared.binds[0].source
    libraries = {"LD_LIBRARY_PATH": str(root / "shared"), "PYTHONPATH": str(folder / "lib")}
    drop = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--")
    return subprocess.run(
        [*drop, str(root / "bin" / "python3"), *words],
        capture_output=True, text=True, timeout=60, cwd="/", check=False,
        env={"PATH": "/usr/bin:/bin", **libraries},
    )  # fmt: skip


def test_an_ordinary_user_gets_the_weaker_level_by_asking_for_it(state_dir: Path, folder: Path) -> None:
    state_dir.chmod(0o711)
    answer = as_nobody(state_dir, folder, str(folder / PROGRAM.name), str(folder))
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.splitlines() == [
        "level 2 needs root, for control groups and slot users",
        "True",
        "RLIMIT ok b'1000\\n' b''",
        "('README', 'a/b/c')",
        "RLIMIT ok b'9\\n' b''",
        "RLIMIT exit b'' b'MemoryError\\n'",
        "RLIMIT timeout b'' b''",
        "[]",
    ]
    assert strays(str(folder)) == []
