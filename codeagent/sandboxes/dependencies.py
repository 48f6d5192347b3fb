"""What a project's runs depend on: installed below one directory, and packed.

Whoever installs may be hostile. What is packed is read without following anything, and holds directories, files and
links alone: relative ones that stay inside, and absolute ones to programs of the sandbox, as those of a Python
environment are. Nothing on the host ever follows them.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path, PurePosixPath

from codeagent.sandboxes import archives
from codeagent.sandboxes.box import Bind, Box
from codeagent.sandboxes.protocol import Limits, SandboxFailure

INSIDE = "/dependencies"
MOST_FILES = 400_000
"""Files, links and directories of one installation."""

_PROGRAMS_INSIDE = f"{INSIDE}/bin"
_INSTALLING = {
    # Compiled Python is then told by its content: when files were laid out says nothing.
    "SOURCE_DATE_EPOCH": "315532800",
    # Beside the home directory, which is small.
    "XDG_CACHE_HOME": "/tmp/cache",  # noqa: S108
    "npm_config_cache": "/tmp/cache/npm",  # noqa: S108
    "PIP_NO_CACHE_DIR": "1",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
}
_PROGRAMS = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "opt")
_DEEPEST = 100


def shown_in(box: Box, layout: Path) -> Box:
    """The box with what is laid out there, where programs look for it."""
    return replace(
        box,
        binds=(*box.binds, Bind(layout, INSIDE)),
        programs=_PROGRAMS_INSIDE,
        environment={"NODE_PATH": f"{INSIDE}/node_modules", **box.environment},
    )


def installed_in(box: Box, volume: Path) -> Box:
    """The box of a command that installs into `volume`, and changes nothing else."""
    return replace(
        box,
        writable=False,
        binds=(*box.binds, Bind(volume, INSIDE, writable=True)),
        fills=volume,
        programs=_PROGRAMS_INSIDE,
        environment={**_INSTALLING, **box.environment},
    )


def bounds(limits: Limits) -> Limits:
    """Those of an archive of dependencies."""
    return replace(limits, workspace_bytes=limits.dependencies_bytes, workspace_inodes=MOST_FILES)


def kept_link(parts: tuple[str, ...], target: str) -> str | None:
    """What a link at `parts` may read, so that it means the same and does not lead astray; `None` if nothing."""
    if target.startswith(f"{INSIDE}/"):
        target = "../" * (len(parts) - 1) + target.removeprefix(f"{INSIDE}/")
    return target if archives.stays_inside(parts, target) or _is_program(target) else None


def _is_program(target: str) -> bool:
    path = PurePosixPath(target)
    plain = path.is_absolute() and ".." not in path.parts and "\0" not in target and len(os.fsencode(target)) <= 4000
    return plain and len(path.parts) > 2 and path.parts[1] in _PROGRAMS


def pack(root: Path, destination: Path, limits: Limits) -> None:
    """Blocking. Raises `SandboxFailure` (`dependencies_too_large`), and leaves no `destination` then."""
    try:
        archives.pack(root, destination, bounds(limits), link=kept_link, deepest=_DEEPEST)
    except SandboxFailure as failure:
        destination.unlink(missing_ok=True)
        if failure.reason != "too_large":
            raise
        detail = f"the dependencies are larger or more deeply nested than allowed: {limits.dependencies_bytes} bytes"
        raise SandboxFailure(detail, reason="dependencies_too_large", retryable=False) from None
    except BaseException:
        destination.unlink(missing_ok=True)
        raise
