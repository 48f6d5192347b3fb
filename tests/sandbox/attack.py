"""An attack as data: a program, and what is to come of it. They stand in `attacks/*.toml`, one file a category."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from codeagent.messages.sandbox_limits import SandboxLimits

FOLDER = Path(__file__).with_name("attacks")
PRELUDE = FOLDER / "attacking.py"

SMALL = SandboxLimits(
    memory_bytes=256 << 20, processes=64, workspace_bytes=64 << 20, workspace_inodes=5_000, cpu_millicores=1_000
)
"""What an attack may use unless it says otherwise."""


WAY_OUT = ("listed.invalid:443",)
"""What sandboxes with a way out may reach: a name that leads nowhere."""


@dataclass(frozen=True, slots=True)
class Step:
    """One tool call. `reason` and `limits_hit` are what the log has to say of it: one of the reasons, all of the
    limits. `prints` has to be in its output, `cpu_share` bounds the cores it used over its time."""

    tool: str = "shell"
    arguments: Mapping[str, Any] = field(default_factory=dict)
    seconds: int = 20
    reason: tuple[str, ...] = ("ok",)
    limits_hit: tuple[str, ...] = ()
    prints: str = ""
    cpu_share: float | None = None
    wall_below: float | None = None


@dataclass(frozen=True, slots=True)
class Attack:
    """`files` are in the workspace when it begins, `members` are further ones of the archive, as its author wrote them;
    `harmless`: it does no harm where nothing holds it, so that it may run in a weakened sandbox. `quick` ones are tried
    whenever tests run, on the first driver; those to be tried `everywhere`, on every one. `egress` is what its commands
    may reach. `beside`: somebody else's command has to be carried out while it lasts."""

    name: str
    says: str
    category: str
    steps: tuple[Step, ...]
    files: Mapping[str, str]
    limits: SandboxLimits
    members: tuple[Mapping[str, Any], ...] = ()
    harmless: bool = False
    quick: bool = False
    everywhere: bool = False
    beside: bool = False
    egress: tuple[str, ...] = ()


@cache
def attacks(*, own_kernel: bool) -> Mapping[str, Attack]:
    """By name. `own_kernel`: as they are to end in a sandbox that has a kernel of its own. Those on the network are
    there twice: a way out to one host must open nothing else."""
    found: dict[str, Attack] = {}
    for path in sorted(FOLDER.glob("*.toml")):
        for entry in tomllib.loads(path.read_text(encoding="utf-8"))["attack"]:
            attack = _attack(path.stem.replace("_", " "), entry, own_kernel=own_kernel)
            if attack.name in found:
                raise ValueError(f"{path.name}: there is an attack {attack.name} already")
            found[attack.name] = attack
            if path.stem == "network" and not attack.egress:
                beside = f"{attack.name}-beside-a-way-out"
                found[beside] = replace(attack, name=beside, egress=WAY_OUT, quick=False, everywhere=False)
    return found


def _attack(category: str, entry: dict[str, Any], *, own_kernel: bool) -> Attack:
    entry = dict(entry)
    differs = entry.pop("own_kernel", {})
    if own_kernel:
        entry |= differs
    files = {"attacking.py": PRELUDE.read_text(encoding="utf-8"), **entry.pop("files", {})}
    if "program" in entry:
        files["attack.py"] = entry.pop("program")
        entry.setdefault("command", "python3 attack.py")
    limits = SandboxLimits(**entry.pop("limits", {})).over(SMALL)
    members = tuple(entry.pop("members", ()))
    words = {name: entry.pop(name) for name in ("name", "says")}
    flags = {name: entry.pop(name, False) for name in ("harmless", "quick", "everywhere", "beside")}
    egress = WAY_OUT if entry.pop("way_out", False) else ()
    about = {"category": category, "files": files, "limits": limits, "members": members, "egress": egress}
    return Attack(**words, **flags, **about, steps=tuple(_steps(entry)))


def _steps(entry: dict[str, Any]) -> Iterator[Step]:
    then = entry.pop("then", [])
    yield _step(entry)
    for each in then:
        yield _step(dict(each))


def _step(entry: dict[str, Any]) -> Step:
    if "command" in entry:
        entry["arguments"] = {"command": entry.pop("command")}
    reason = entry.pop("reason", "ok")
    step = Step(reason=tuple([reason] if isinstance(reason, str) else reason))
    limits = tuple(entry.pop("limits_hit", ()))
    return replace(step, limits_hit=limits, **entry)
