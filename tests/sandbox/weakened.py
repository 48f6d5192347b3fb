"""Sandboxes with one wall taken away, made for the tests alone: each shows that the attacks on that wall would be seen.

Most are bubblewrap started by a program in its place, which changes its words and then becomes it. The driver itself
is as it always is.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from codeagent.sandboxes import cgroups, mounts
from codeagent.sandboxes.bwrap import BubblewrapDriver
from codeagent.sandboxes.egress import Proxy, always
from codeagent.sandboxes.protocol import IsolationLevel, Limits, Patch, ProbeReport, Workspace
from tests.sandbox import drivers
from tests.sandbox.bait import Bait

_BECOMES = """#!{python} -IS
import os, sys
words, bait = sys.argv[1:], {bait!r}
def without(option, values=0):
    while option in words:
        at = words.index(option)
        del words[at : at + 1 + values]
def before(option, *more):
    words[words.index(option) : words.index(option)] = more
if "--" in words:
{change}
os.execv({bwrap!r}, ["bwrap", *words])
"""


class Unproven(BubblewrapDriver):
    """Does not prove itself first: its probe would refuse to go on, as it should."""

    async def probe(self, *, again: bool = False) -> ProbeReport:
        await self._ready()
        return ProbeReport(self.name, "weakened", self.level, {})


class HostGit(Unproven):
    """Lets git of the machine look at the files first."""

    async def diff(self, workspace: Workspace, limits: Limits) -> Patch:
        files = workspace.files  # type: ignore[attr-defined]
        os.system(f"git -c safe.directory='*' -C {files} status >/dev/null 2>&1")
        return await super().diff(workspace, limits)


class FollowsLinks(Unproven):
    """Reads and writes by path."""

    async def read_file(self, workspace: Workspace, path: str, limit_bytes: int) -> bytes:
        return Path(workspace.files, path).read_bytes()  # type: ignore[attr-defined]

    async def write_file(self, workspace: Workspace, path: str, data: bytes) -> None:
        Path(workspace.files, path).write_bytes(data)  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class Weakness:
    """`change`: Python that changes `words`, those of bubblewrap; `patch` changes what the driver does. Every one of
    `opens` is an attack that then gets out."""

    name: str
    opens: tuple[str, ...]
    change: str = "pass"
    patch: Callable[[pytest.MonkeyPatch], None] | None = None
    driver: type[Unproven] = Unproven

    def make(self, state_dir: Path, bait: Bait, scratch: Path) -> Unproven:
        """The driver. Blocking."""
        real = shutil.which("bwrap")
        assert real is not None
        program = scratch / "bwrap"
        change = "\n".join(f"    {line}" for line in self.change.strip().splitlines())
        facts = {**bait.facts, "folder": str(bait.folder), "secret": bait.secret}
        system_python = shutil.which("python3", path="/usr/bin:/bin") or sys.executable
        program.write_text(_BECOMES.format(python=system_python, bait=facts, change=change, bwrap=real))
        program.chmod(0o755)
        return self.driver(
            state_dir, IsolationLevel.KERNEL, slot_uids=drivers.SLOTS, bwrap_path=str(program), parked=False
        )


def _no_limits(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(cgroups, "_settings", lambda _trees, _limits: [])


def _large_workspaces(patch: pytest.MonkeyPatch) -> None:
    mount: Any = mounts.mount_tmpfs

    def larger(target: Path, *, size_bytes: int, inodes: int, owner: int, read_only: bool = False) -> None:
        mount(target, size_bytes=size_bytes * 4, inodes=inodes, owner=owner, read_only=read_only)

    patch.setattr(mounts, "mount_tmpfs", larger)


def _open_proxy(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Proxy, "_find", lambda *_: always((ip_address("127.0.0.1"),)))


WEAKNESSES = (
    Weakness(
        "no filters of system calls",
        (
            "keyrings",
            "vsock",
            "memory-of-others",
            "unusual-calls",
            "the-other-interface",
            "netlink",
            "mount-by-the-new-interface",
            "terminal-injection",
        ),
        'without("--add-seccomp-fd", 1)',
    ),
    Weakness(
        "the machine's network",
        ("loopback-tcp", "loopback-udp", "unix-sockets", "metadata-and-world"),
        'without("--unshare-net")',
    ),
    Weakness("a way out that leads everywhere", ("by-the-way-out",), patch=_open_proxy),
    Weakness(
        "the machine's processes",
        ("kill-others", "see-others", "descriptors-of-others"),
        """
without("--unshare-pid")
at = words.index("--proc")
words[at : at + 2] = ["--ro-bind", "/proc", "/proc"]
while "/proc/keys" in words and any(word.startswith("/proc/") for word in words[: words.index("--")]):
    at = next(at for at, word in enumerate(words) if word.startswith("/proc/"))
    del words[at - 2 : at + 1]
""",
    ),
    Weakness("the machine's shared memory", ("shared-memory-of-others",), 'without("--unshare-ipc")'),
    Weakness(
        "a directory of the machine",
        ("host-secrets", "write-everywhere"),
        'before("--remount-ro", "--bind", bait["folder"], bait["folder"])',
    ),
    Weakness(
        "variables of the machine",
        ("host-environment",),
        'before("--remount-ro", "--setenv", "API_TOKEN", bait["secret"])',
    ),
    Weakness(
        "devices of the machine",
        ("devices",),
        'at = words.index("--dev"); words[at : at + 2] = ["--dev-bind", "/dev", "/dev"]',
    ),
    Weakness(
        "a root that can be written",
        ("write-everywhere", "rename-what-is-mounted"),
        'without("--remount-ro", 1)',
    ),
    Weakness(
        "capabilities and namespaces of its own",
        ("mount", "change-root", "nested-namespaces", "become-somebody", "administer-the-kernel", "raw-sockets"),
        """
without("--add-seccomp-fd", 1)
without("--cap-drop", 1)
without("--disable-userns")
before("--remount-ro", "--cap-add", "ALL")
""",
    ),
    Weakness(
        "an open descriptor",
        ("inherited-descriptors",),
        """
handle = os.open(bait["open_file"], os.O_RDONLY)
os.set_inheritable(handle, True)
""",
    ),
    Weakness(
        "no limits of control groups",
        ("many-processes", "too-much-memory", "more-cores-than-allowed"),
        patch=_no_limits,
    ),
    Weakness("a workspace without bounds", ("more-files-than-allowed",), patch=_large_workspaces),
    Weakness("git of the machine in a workspace", ("git-configuration",), driver=HostGit),
    Weakness("files read and written by path", ("links-to-read", "links-to-write"), driver=FollowsLinks),
)
