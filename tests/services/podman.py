"""A real container engine for tests: Podman, with storage of its own and an image made of what this machine has.

No registry is asked: the image holds copies of a few programs with the libraries they need, and the Python that runs
the tests.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from codeagent.sandboxes import runtime
from codeagent.sandboxes.engine import EngineOptions
from tests.conftest import unavailable
from tests.services.root_image import LINKS, copy_program, lay_out, libraries

_PROGRAMS = [
    "sh",
    "bash",
    "env",
    "cat",
    "cp",
    "rm",
    "mv",
    "ls",
    "ln",
    "mkdir",
    "rmdir",
    "touch",
    "head",
    "tail",
    "wc",
    "sleep",
    "true",
    "false",
    "echo",
    "printenv",
    "id",
    "stat",
    "mount",
    "chmod",
    "chown",
    "dd",
    "timeout",
    "sort",
    "tr",
    "cut",
    "uname",
    "test",
    "seq",
    "yes",
    "truncate",
    "mkfifo",
    "kill",
    "setsid",
    "ps",
    "find",
    "grep",
    "sed",
    "tar",
    "git",
    "nc",
    "unshare",
]
_EMPTY = ("etc", "proc", "sys", "dev", "run", "tmp", "workspace", "home/agent", "base.git", "fetch", "usr/sbin", "var")


def require_podman() -> None:
    """Skips, or fails in CI where `CODEAGENT_TEST_CONTAINERS` promises an engine."""
    if os.environ.get("CODEAGENT_TEST_CONTAINERS") != "1":
        pytest.skip("set CODEAGENT_TEST_CONTAINERS=1 for tests on Podman (apt-get install podman runc catatonit)")
    if os.geteuid() != 0:
        unavailable("Podman needs root to make control groups")
    for program in ("podman", "runc"):
        if shutil.which(program) is None:
            unavailable(f"{program} is not installed")


class Podman:
    """An engine whose images and containers lie below `directory`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.arguments = (
            *("--root", str(directory / "storage"), "--runroot", str(directory / "run"), "--storage-driver", "overlay"),
            *("--cgroup-manager=cgroupfs", "--events-backend=none"),
        )
        images = {"toolchain": self._image("toolchain", _lay_out_toolchain)}
        self.options = EngineOptions("podman", self._image("test", _lay_out), self.arguments, "runc", images=images)

    def ask(self, *words: str) -> str:
        command = ("podman", *self.arguments, "--runtime", "runc", *words)
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def _image(self, tag: str, fill: Callable[[Path], None]) -> str:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder, "root")
            fill(root)
            packed = Path(folder, "image.tar")
            with tarfile.open(packed, "w") as archive:
                archive.add(root, ".")
            imported = self.ask("import", "--quiet", str(packed), f"localhost/sandbox:{tag}")
            return "sha256:" + imported.removeprefix("sha256:")

    def close(self) -> None:
        """Removes every container and image."""
        self.ask("rm", "--all", "--force")
        self.ask("rmi", "--all", "--force")
        shutil.rmtree(self.directory, ignore_errors=True)


def _lay_out_toolchain(root: Path) -> None:
    """An image of a project: it has neither git nor Python."""
    lay_out(root)
    _make_places(root)


def _make_places(root: Path) -> None:
    for name in _EMPTY:
        (root / name).mkdir(parents=True, exist_ok=True)
    for name in ("tmp", "home/agent"):
        (root / name).chmod(0o1777)


def _lay_out(root: Path) -> None:
    _make_places(root)
    for name, target in LINKS.items():
        (root / name).symlink_to(target)
    (root / "etc" / "passwd").write_text("root:x:0:0::/:/bin/sh\n")
    programs = [Path(found) for name in _PROGRAMS if (found := shutil.which(name, path="/usr/bin:/bin:/usr/sbin"))]
    with tempfile.TemporaryDirectory() as built:
        python = runtime.prepare(Path(built)).binds[0].source
        shutil.copytree(python, root / "opt" / "python", symlinks=True)
    shared = root / "opt" / "python" / "shared"
    extensions = list((root / "opt" / "python").rglob("*.so"))
    if sys.base_prefix == "/usr":
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        programs.append(Path("/usr/bin", version))
        shutil.copytree(Path("/usr/lib", version), root / "usr" / "lib" / version)
        extensions += Path("/usr/lib", version).rglob("*.so")
    interpreter = [path for path in (root / "opt/python/bin").iterdir() if path.is_file() and not path.is_symlink()]
    linked = libraries([*programs, *extensions, *interpreter])
    # The C library loads this one by itself, when a thread is to end; without it the program is aborted.
    unwinding = {found for path in linked if (found := path.with_name("libgcc_s.so.1")).exists()}
    for path in (*programs, *linked, *unwinding):
        copy_program(path, root)
    for path in shared.iterdir() if shared.is_dir() else ():
        shutil.copyfile(path, root / "usr" / "lib" / path.name)
    (root / "usr/local/bin").mkdir(parents=True)
    for name in ("python", "python3", "pytest"):
        (root / "usr/local/bin" / name).symlink_to(f"/opt/python/bin/{name}")
    remote = Path("/usr/lib/git-core/git-remote-https")
    if remote.exists():
        for path in (remote, *libraries([remote])):
            copy_program(path, root)
