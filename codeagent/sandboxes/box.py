"""What a sandbox is, whatever starts it: the command, what it may touch, and what surrounds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from codeagent.sandboxes.protocol import DEFAULT_IMAGE

WORKSPACE = "/workspace"
HOME = "/home/agent"
INNER_UID = 1000
SMALL_TMPFS_BYTES = 64 << 20
"""Of the home directory, and of shared memory."""


@dataclass(frozen=True, slots=True)
class Bind:
    """A host path shown at `target` inside."""

    source: Path
    target: str
    writable: bool = False


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link inside, at `target`, that reads `text`."""

    text: str
    target: str


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every sandbox of one image sees beside its workspace.

    `top_level`: /usr and its aliases, or what else the image has. `masks`: (empty host path, path under /proc).
    """

    top_level: tuple[Bind | Link, ...]
    etc: Path
    masks: tuple[tuple[Path, str], ...]
    tools: tuple[Bind, ...]
    environment: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Box:
    """One sandbox: the command and what it may touch. `max_processes` is for machines without a group limit; `image`
    names what surrounds it; `fills` is the volume on the host that it writes to, where that is not the workspace;
    `programs` is the directory inside whose programs it finds first."""

    command: tuple[str, ...]
    workspace: Path
    writable: bool = True
    directory: str = WORKSPACE
    environment: Mapping[str, str] = field(default_factory=dict)
    binds: tuple[Bind, ...] = ()
    tmp_bytes: int = 256 << 20
    max_processes: int | None = None
    image: str = DEFAULT_IMAGE
    fills: Path | None = None
    programs: str = ""

    @property
    def volume(self) -> Path | None:
        """What has no room left when the command could write no more."""
        return self.workspace if self.writable else self.fills

    def variables(self, around: Mapping[str, str]) -> dict[str, str]:
        """The command's environment, in the `around` of its driver."""
        found = {**around, **self.environment}
        if self.programs:
            found["PATH"] = f"{self.programs}:{found['PATH']}"
        return found


def check_target(target: str) -> None:
    """Raises `ValueError` for a mount whose target somebody inside could have replaced."""
    path = PurePosixPath(target)
    below = any(path == PurePosixPath(top) or PurePosixPath(top) in path.parents for top in (WORKSPACE, "/tmp", HOME))  # noqa: S108
    if not path.is_absolute() or ".." in path.parts or below or len(path.parts) < 2:
        raise ValueError(f"nothing may be mounted at {target}")
