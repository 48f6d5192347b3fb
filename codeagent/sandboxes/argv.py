"""Builds the argument list of bubblewrap: what a sandbox sees, and nothing else."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence

from codeagent.sandboxes.box import (
    HOME,
    INNER_UID,
    SMALL_TMPFS_BYTES,
    WORKSPACE,
    Bind,
    Box,
    Link,
    Surroundings,
    check_target,
)

COMMAND = "CODEAGENT_COMMAND"
"""The variable a parked sandbox is told its command in. The command itself does not see it."""


_UNFINISHED = ("--perms", "0755")
"""Bubblewrap refuses this without something after it that has permissions."""
_FINISHED = ("--dir", "/run")


def build(bwrap: str, box: Box, around: Surroundings, *, status: int, filters: Sequence[int]) -> list[str]:
    """The whole argument list. Raises `ValueError` for a mount whose target somebody inside could have replaced."""
    return [bwrap, *_fixed(status, filters), *_options(box, around), "--", *_shell(box.max_processes), *box.command]


def parked(bwrap: str, *, status: int, filters: Sequence[int], told: int) -> list[str]:
    """The argument list of a sandbox that waits until `told` is closed for what `told_to_parked` gives.

    What isolates is said here and now. If nothing more is ever said, the options are not whole and it ends at once: who
    starts it may be killed, and what began then could be left half-way.
    """
    shell = ("/bin/sh", "-c", f'eval "unset {COMMAND}; ${COMMAND}"', "sh")
    return [bwrap, *_fixed(status, filters), *_UNFINISHED, "--args", str(told), "--", *shell]


def told_to_parked(box: Box, around: Surroundings) -> bytes:
    """The rest of the options, each ended by NUL. The command comes last, so that half of them runs nothing.

    Raises `ValueError` as `build` does.
    """
    limit = "" if box.max_processes is None else f"ulimit -p {box.max_processes} && "
    words = [*_FINISHED, *_options(box, around), "--setenv", COMMAND, f"{limit}exec {shlex.join(box.command)}"]
    return b"".join(os.fsencode(word) + b"\0" for word in words)


def _fixed(status: int, filters: Sequence[int]) -> list[str]:
    return [
        *_isolation(),
        *(word for handle in filters for word in ("--add-seccomp-fd", str(handle))),
        *("--json-status-fd", str(status)),
    ]


def _options(box: Box, around: Surroundings) -> list[str]:
    binds = (*around.tools, *box.binds)
    for bind in binds:
        check_target(bind.target)
    return [
        *_environment(box.variables(around.environment)),
        *(word for part in around.top_level for word in _part(part)),
        *("--ro-bind", str(around.etc), "/etc"),
        *_memory_file_systems(box.tmp_bytes),
        *(word for source, target in around.masks for word in ("--ro-bind", str(source), target)),
        *(word for bind in binds for word in _part(bind)),
        *("--bind" if box.writable else "--ro-bind", str(box.workspace), WORKSPACE),
        *("--remount-ro", "/"),
        *("--chdir", box.directory),
    ]


def _part(part: Bind | Link) -> tuple[str, str, str]:
    if isinstance(part, Link):
        return ("--symlink", part.text, part.target)
    return ("--bind" if part.writable else "--ro-bind", str(part.source), part.target)


def _isolation() -> list[str]:
    # Each namespace by name: --unshare-all settles for less where the kernel refuses, and says nothing.
    return [
        *("--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup"),
        *("--uid", str(INNER_UID), "--gid", str(INNER_UID), "--hostname", "sandbox"),
        *("--die-with-parent", "--new-session", "--cap-drop", "ALL", "--disable-userns"),
    ]


def _environment(values: Mapping[str, str]) -> list[str]:
    words = ["--clearenv"]
    for name, value in values.items():
        words += ["--setenv", name, value]
    return words


def _memory_file_systems(tmp_bytes: int) -> list[str]:
    small = str(SMALL_TMPFS_BYTES)
    return [
        *("--proc", "/proc", "--dev", "/dev"),
        *("--size", small, "--perms", "1777", "--tmpfs", "/dev/shm", "--remount-ro", "/dev"),  # noqa: S108
        *("--size", str(tmp_bytes), "--perms", "1777", "--tmpfs", "/tmp"),  # noqa: S108
        *("--size", small, "--perms", "0700", "--tmpfs", HOME),
        *("--dir", "/run", "--dir", "/var", "--symlink", "../tmp", "/var/tmp"),  # noqa: S108
    ]


def _shell(max_processes: int | None) -> list[str]:
    """The shell gives 126 and 127 their usual meaning, and sets the limit that only counts inside."""
    limit = "" if max_processes is None else f"ulimit -p {max_processes} && "
    return ["/bin/sh", "-c", f'{limit}exec "$@"', "sh"]
