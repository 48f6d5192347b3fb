"""What the commands of a run may use, and what they have used."""

from __future__ import annotations

from pydantic import Field

from codeagent.messages.conversation import Data


def _unsaid(value: object) -> bool:
    return value is None


def _bound(least: int, most: int, what: str) -> int | None:
    field: int | None = Field(default=None, ge=least, le=most, exclude_if=_unsaid, description=what)
    return field


class SandboxLimits(Data):
    """Bounds of one command, and those that begin with `total_` of all commands of a run together. What is left out
    is as the operator has it, who also sets the most of each."""

    cpu_millicores: int | None = _bound(10, 256_000, "Of each command: 1000 are one core.")
    memory_bytes: int | None = _bound(1 << 24, 1 << 40, "Of all processes of a command, and the files it writes.")
    processes: int | None = _bound(4, 100_000, "Processes and threads of a command.")
    open_files: int | None = _bound(16, 1 << 20, "Of each process.")
    workspace_bytes: int | None = _bound(1 << 20, 1 << 40, "Of the run's files.")
    workspace_inodes: int | None = _bound(100, 100_000_000, "Files and directories of the run.")
    dependencies_bytes: int | None = _bound(1 << 20, 1 << 40, "Of what is installed for the run.")
    output_bytes: int | None = _bound(1 << 10, 1 << 30, "What a command may print before it is stopped.")
    total_commands: int | None = _bound(1, 100_000, "Commands of the run.")
    total_wall_seconds: int | None = _bound(1, 1_000_000, "Time that the run's commands take.")
    total_cpu_seconds: int | None = _bound(1, 100_000_000, "CPU time that the run's commands use.")
    total_output_bytes: int | None = _bound(1 << 10, 1 << 40, "What the run's commands print.")

    def over(self, less: SandboxLimits) -> SandboxLimits:
        """These limits, and `less`'s where these say nothing."""
        return SandboxLimits(**{**less.said(), **self.said()})

    def lowered(self, most: SandboxLimits) -> SandboxLimits:
        """These limits, none above `most`."""
        bounds = most.said()
        return SandboxLimits(**{name: min(value, bounds.get(name, value)) for name, value in self.said().items()})

    def first_above(self, most: SandboxLimits) -> tuple[str, int] | None:
        """Name and bound of a limit that is above `most`."""
        bounds = most.said()
        return next(
            ((name, bounds[name]) for name, value in self.said().items() if value > bounds.get(name, value)), None
        )

    def said(self) -> dict[str, int]:
        return {name: value for name, value in self if value is not None}


class CommandUse(Data):
    """What commands have used. `output_bytes` counts all they printed, kept or not."""

    commands: int = 0
    wall_ms: int = 0
    cpu_ms: int = 0
    output_bytes: int = 0

    def __add__(self, other: CommandUse) -> CommandUse:
        return CommandUse(
            commands=self.commands + other.commands,
            wall_ms=self.wall_ms + other.wall_ms,
            cpu_ms=self.cpu_ms + other.cpu_ms,
            output_bytes=self.output_bytes + other.output_bytes,
        )
