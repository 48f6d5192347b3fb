"""Says whether an attack was contained: by what it printed, by what the log tells, and by what is on the machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from codeagent.messages.events import ExecEnded
from codeagent.messages.values import Outcome
from codeagent.sandboxes import mounts
from codeagent.sandboxes.cgroup_layout import find_trees
from codeagent.sandboxes.machine import group_name
from tests.sandbox.attack import Step
from tests.sandbox.bait import MARK, Bait

WORD = b"ESCAPED"


@dataclass(frozen=True, slots=True)
class Seen:
    """Of one step: what the log says, all output and everything that was kept of its files, how long it took, and what
    the worker said of a failure."""

    fact: ExecEnded
    output: bytes
    seconds: float
    error: str = ""


def misses(step: Step, seen: Seen, secret: str) -> list[str]:
    """In which ways a step ended otherwise than it should have."""
    fact = seen.fact
    found = [line.decode("utf-8", "replace") for line in seen.output.splitlines() if line.startswith(WORD)]
    if secret.encode() in seen.output:
        found.append("what it wrote has the secret")
    if fact.reason not in step.reason:
        tail = seen.output[-400:].decode("utf-8", "replace")
        found.append(f"ended as {fact.reason}, not {' or '.join(step.reason)}: {seen.error or tail}")
    found += [f"limit {name} was not hit" for name in step.limits_hit if name not in fact.limits_hit]
    if step.prints and step.prints.encode() not in seen.output:
        found.append(f"did not print {step.prints!r}")
    if step.cpu_share is not None and fact.cpu_seconds > step.cpu_share * fact.wall_seconds:
        found.append(f"used {fact.cpu_seconds:.1f} s of cores in {fact.wall_seconds:.1f} s")
    if step.wall_below is not None and seen.seconds > step.wall_below:
        found.append(f"held its caller for {seen.seconds:.1f} s")
    if fact.outcome is Outcome.FAILED and fact.retryable is None:
        found.append("failed without saying whether it can be tried again")
    return found


@dataclass(frozen=True, slots=True)
class Traces:
    """What a sandbox may leave on the machine. `uids` are those that its processes may have, `victims` those of the
    processes that stand for others: by what they are."""

    state_dir: Path
    bait: Bait
    uids: tuple[int, ...]
    victims: dict[str, int]

    def left(self) -> set[str]:
        """Everything that is there now, in words."""
        pids = {pid for uid in self.uids for pid in running_as(uid)} - self.bait.victims
        found = {f"process {pid} was left: {_shown(pid)}" for pid in pids}
        found |= {f"mount {path} was left" for path in mounts.mounted_below(self.state_dir)}
        found |= {f"mount {line} was left" for line in _mounted() if MARK in line}
        # By workspace: one that stays may have had a command in the meantime, and keeps a sandbox for the next.
        found |= {f"a control group of {path.name.partition('.')[0]} was left" for path in self._groups()}
        below = [path for name in ("workspaces", "bundles") for path in (self.state_dir / name).glob("*")]
        return found | {f"{path.name} was left" for path in below}

    def _groups(self) -> list[Path]:
        base = find_trees().below(group_name(self.state_dir))
        return [path for directory in base.directories for path in directory.glob("*") if path.is_dir()]


def _mounted() -> list[str]:
    return Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()


def running_as(uid: int) -> list[int]:
    """Pids of all that have that user in any of their ids, but for those that only wait to be waited for."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = dict(line.split(":", 1) for line in (entry / "status").read_text().splitlines())
        except (FileNotFoundError, ProcessLookupError):
            continue
        if str(uid) in fields["Uid"].split() and fields["State"].split()[0] not in "ZX":
            found.append(int(entry.name))
    return found


def _shown(pid: int) -> str:
    """What it was when somebody looked: it may go at any moment."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
        return words.decode("utf-8", "replace")[-200:]
    except OSError:
        return "gone"
