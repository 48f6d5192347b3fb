"""A newcomer's first job, on other people's code: a bug in a public project, repaired from the command line.

The projects are taken from this environment, where the lock has put them; their tests here are ours.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.acceptance.system import UpSystem, codeagent
from tests.servers.git_server import git

ROOT = Path(__file__).resolve().parents[2]
SUITES = ROOT / "tests" / "fixtures" / "public_projects"


@dataclass(frozen=True)
class Seeded:
    """A package, and the one place in it that is spoilt."""

    package: str
    file: str
    right: str
    wrong: str


BUGS = [
    Seeded("h11", "_readers.py", "self._remaining -= len(data)", "self._remaining += len(data)"),
    Seeded("docstring_parser", "google.py", 'elif type_name.endswith("?")', 'elif type_name.startswith("?")'),
]


@pytest.fixture(scope="module")
def running() -> Iterator[UpSystem]:
    """`codeagent up` as it comes, without any configuration."""
    folder = Path(tempfile.mkdtemp(prefix="codeagent-public-"))
    folder.chmod(0o711)
    system = UpSystem(folder / "data")
    yield system
    system.stop()
    shutil.rmtree(folder, ignore_errors=True)


def repository(bug: Seeded, folder: Path) -> tuple[Path, str]:
    """A git repository with the spoilt project and its tests; and the spoilt file's text as it was."""
    spec = importlib.util.find_spec(bug.package)
    assert spec is not None
    assert spec.submodule_search_locations is not None
    locked = (ROOT / "deploy" / "locks" / "dev.txt").read_text()
    assert f"\n{bug.package.replace('_', '-')}=={version(bug.package)} \\\n    --hash=sha256:" in locked
    source = Path(next(iter(spec.submodule_search_locations)))
    shutil.copytree(source, folder / bug.package, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "tests").mkdir()
    shutil.copy(SUITES / f"test_{bug.package}.py", folder / "tests")
    spoilt = folder / bug.package / bug.file
    text = spoilt.read_text()
    assert text.count(bug.right) == 1
    spoilt.write_text(text.replace(bug.right, bug.wrong))
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "as it is")
    return folder, text


def suite_passes(folder: Path) -> bool:
    command = [sys.executable, "-B", "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"]
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False).returncode == 0


@pytest.mark.timeout(240)
@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.package)
def test_a_bug_in_a_public_project_is_repaired_by_the_model_that_needs_no_key(
    running: UpSystem, tmp_path: Path, bug: Seeded
) -> None:
    repo, original = repository(bug, tmp_path)
    assert not suite_passes(repo)
    command = codeagent("run", "make the tests pass", "--repo", str(repo), "--data-dir", str(running.data_dir))
    done = subprocess.run([*command, "--apply"], capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Repaired." in done.stdout
    assert (repo / bug.package / bug.file).read_text() == original
    assert git(repo, "diff", "--name-only").splitlines() == [f"{bug.package}/{bug.file}"]
    assert suite_passes(repo)
