"""A root file system for tests, as an operator would lay one out: a shell, a few programs, and one that no machine has."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

LINKS = {"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64"}
"""Of the top level, as distributions have them."""
_PROGRAMS = ("sh", "bash", "env", "cat", "ls", "grep", "readlink", "sleep", "touch", "true")


@contextmanager
def laid_out() -> Iterator[Path]:
    """Where every user of the machine can reach it."""
    with tempfile.TemporaryDirectory(prefix="codeagent-image-") as folder:
        Path(folder).chmod(0o755)
        yield lay_out(Path(folder, "root"))


def lay_out(root: Path) -> Path:
    """Makes `root`, in which `toolchain` says whose it is, from below /opt through a link of /etc/alternatives."""
    for name in ("usr/bin", "usr/sbin", "usr/lib", "usr/lib64", "etc/alternatives", "opt/toolchain/bin", "var/lib"):
        (root / name).mkdir(parents=True)
    for name, target in LINKS.items():
        (root / name).symlink_to(target)
    program = root / "opt/toolchain/bin/toolchain"
    program.write_text("#!/bin/sh\necho of the image\n")
    program.chmod(0o755)
    (root / "etc/alternatives/toolchain").symlink_to("/opt/toolchain/bin/toolchain")
    (root / "usr/bin/toolchain").symlink_to("/etc/alternatives/toolchain")
    found = [Path(path) for name in _PROGRAMS if (path := shutil.which(name, path="/usr/bin:/bin"))]
    for path in (*found, *libraries(found)):
        copy_program(path, root)
    return root


def copy_program(path: Path, root: Path) -> None:
    """Copies a program or a library to where `LINKS` lead."""
    inside = str(path) if str(path).startswith("/usr/") else f"/usr{path}"
    target = root / inside.lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        shutil.copyfile(path, target)
        target.chmod(0o755)


def libraries(programs: Iterable[Path]) -> set[Path]:
    """What programs of this machine are linked with, the linker included."""
    answer = subprocess.run(["ldd", *map(str, programs)], capture_output=True, text=True, check=False).stdout
    return {Path(found) for found in re.findall(r"(?:=> )?(/\S+\.so\S*) \(0x", answer)}
