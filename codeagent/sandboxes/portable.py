"""A Python that needs nothing of the system around it, for programs of ours beside commands that see another image.

A copy of the running interpreter with every shared library it is linked with, the linker included: an image may have
another C library, or another release of it.
"""

from __future__ import annotations

import re
import shutil
import subprocess  # nosec: asks the dynamic linker about our own interpreter
from pathlib import Path

from codeagent.sandboxes import runtime
from codeagent.sandboxes.box import Bind
from codeagent.sandboxes.runtime import Interpreter

_INSIDE = "/run/python"
_LINKER, _LIBRARIES = "linker", "shared"


def prepare(directory: Path) -> Interpreter:
    """That Python from below `directory`, built once for each interpreter. Blocking, as `runtime.prepare`. Raises
    `SandboxUnavailable`."""
    target = runtime.built_once(directory, "portable", _fill)
    words = (f"{_INSIDE}/{_LINKER}", "--library-path", f"{_INSIDE}/{_LIBRARIES}", f"{_INSIDE}/bin/{runtime.VERSION}")
    return Interpreter(words, (Bind(target, _INSIDE),))


def _fill(building: Path) -> None:
    runtime.copy_interpreter(building)
    (building / _LIBRARIES).mkdir(exist_ok=True)
    programs = [building / "bin" / runtime.VERSION, *building.rglob("*.so")]
    linker = shutil.which("ldd") or "/usr/bin/ldd"
    answer = subprocess.run([linker, *map(str, programs)], capture_output=True, text=True, check=False, timeout=60)
    for found in re.finditer(r"(?:(\S+) => )?(/\S+) \(0x", answer.stdout):
        name, path = found.groups()
        target = building / (_LINKER if name is None else f"{_LIBRARIES}/{name}")
        if not target.exists():
            shutil.copyfile(path, target)
    (building / _LINKER).chmod(0o755)
