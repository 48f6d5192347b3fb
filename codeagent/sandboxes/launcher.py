"""What differs between drivers whose sandboxes are programs on this machine: how a box becomes a started program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from codeagent.sandboxes.box import Box
from codeagent.sandboxes.processes import Pipes
from codeagent.sandboxes.protocol import IsolationLevel, Limits, Rusage


@dataclass(frozen=True, slots=True)
class Place:
    """Where one program runs. `name` is its alone on this machine, and fit for a file name; `slot_uid` is the user it
    becomes, none for the worker's own; the program joins a control group by writing its pid to the files of `join`."""

    name: str
    slot_uid: int | None
    join: tuple[Path, ...]


class Program(Protocol):
    """A started sandbox. `gone` has to have returned before `exit_code` and the figures are read."""

    @property
    def exit_code(self) -> int | None:
        """What the command returned, 128 + n for signal n; `None` if it never ran, or was killed with the sandbox."""
        ...

    @property
    def rusage(self) -> Rusage:
        """Of all processes waited for; a control group knows better."""
        ...

    @property
    def oom_kills(self) -> int:
        """As far as the sandbox program says; its control group may know of more."""
        ...

    async def ended(self) -> None:
        """Returns when the program has ended; parts of it may live for a moment more."""
        ...

    async def gone(self) -> None:
        """Kills, and returns once no process of the sandbox exists. Raises `SandboxFailure` if that takes too long."""
        ...


class ParkedProgram(Program, Protocol):
    """A sandbox that was started before there was a command for it, and waits. It ends when this process does."""

    def claim(self, box: Box) -> bool:
        """Lets it go on with `box`, once. False if that cannot be: it has ended, or `box` is too long to be told."""
        ...


class Launcher(Protocol):
    """Starts sandboxes. Made once the machine is prepared."""

    def room(self, limits: Limits) -> Limits:
        """What the control group has to allow for a command to have `limits`: the sandbox itself counts in it too."""
        ...

    def start(self, box: Box, limits: Limits, place: Place, pipes: Pipes) -> Program:
        """Called from the event loop's thread: the sandbox dies with it. The caller closes `pipes`.

        Raises `SandboxFailure`, and `ValueError` for a box that could be mounted over.
        """
        ...

    def policy_digest(self, image: str) -> str:
        """`sha256:` of what confines every command of an image, but for its workspace and its limits. Blocking."""
        ...

    def close(self) -> None:
        """Gives up what is held for later starts."""
        ...


@runtime_checkable
class ParkingLauncher(Protocol):
    """A launcher whose sandboxes can wait."""

    def park(self, limits: Limits, place: Place, pipes: Pipes) -> ParkedProgram:
        """As `Launcher.start`, for a box to come."""
        ...


class Engine(Protocol):
    """A sandbox program: whether it works here, and its launcher. `tools`: host directories of further programs,
    readable by everyone, shown at the same path.
    `images`: those beside the default one, and where they are."""

    name: str
    level: IsolationLevel
    state_dir: Path
    tools: tuple[Path, ...]
    images: Mapping[str, str]

    def missing(self) -> list[str]:
        """Why it cannot work here, as far as that shows without starting a sandbox. Blocking."""
        ...

    def version(self) -> str:
        """Of the program, as it says itself. Blocking."""
        ...

    def prepare(self) -> Launcher:
        """Lays out what every sandbox shares below the state directory, which this process has locked. Blocking, up to
        seconds when the Python runtime has to be built. Raises `SandboxUnavailable`."""
        ...

    def hints(self) -> list[str]:
        """What may keep a sandbox from working although nothing is missing. Blocking."""
        ...
