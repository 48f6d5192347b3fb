"""Builds the argument list that makes and starts one hardened container. Everything an engine would add is turned off.

The words are those that Docker and Podman share; where they differ it says so.
"""

from __future__ import annotations

import resource
from collections.abc import Mapping
from pathlib import Path

from codeagent.sandboxes import rootfs
from codeagent.sandboxes.box import HOME, SMALL_TMPFS_BYTES, WORKSPACE, Box, check_target
from codeagent.sandboxes.engine import EngineName, EngineOptions
from codeagent.sandboxes.images import OWN_PROGRAMS
from codeagent.sandboxes.processes import at_most
from codeagent.sandboxes.protocol import DEFAULT_IMAGE, Limits

STATE_LABEL = "org.codeagent.state"
_INIT_TASKS = 2
"""The engine's init program and the shell it starts count among the container's processes."""

_NO_LOGIN = (1 << 32) - 1
"""What the kernel tells for a login that was never set."""

_ONLY: Mapping[EngineName, tuple[str, ...]] = {
    # Writable memory file systems on /run and elsewhere that nobody asked for; the monitor outside our group.
    "podman": ("--read-only-tmpfs=false", "--cgroups=no-conmon", "--no-hosts"),
    "docker": (),
}


def run_words(
    options: EngineOptions, box: Box, limits: Limits, *, name: str, state: str, uid: int, parent: str, profile: Path
) -> list[str]:
    """What follows the engine's own options. `parent`: the control group the container's own is made in.

    Raises `ValueError` for a mount whose target somebody inside could have replaced, or that cannot be written down.
    """
    runtime = ("--runtime", options.runtime) if options.name == "docker" and options.runtime else ()
    return [
        *("run", "--interactive", "--init", "--pull", "never", "--log-driver", "none", "--sig-proxy=false"),
        *("--name", name, "--label", f"{STATE_LABEL}={state}", *runtime),
        # Podman removes what runs politely: it would wait ten seconds for each program that is deaf to SIGTERM.
        *("--stop-timeout", "0"),
        *_isolation(uid, parent, profile),
        *_ONLY[options.name],
        # Docker has a list of its own, shorter, that cannot be added to.
        *(("--security-opt", f"mask={':'.join(rootfs.telling())}") if options.name == "podman" else ()),
        *_limits(limits),
        *_file_systems(box),
        *("--entrypoint", "/usr/bin/env", options.reference(box.image)),
        *inside(box),
    ]


def as_user(uid: int) -> tuple[str, ...]:
    """The words before an engine's program that make all it starts `uid`'s in the machine's audit trail.

    Services belong to no login, and what is in a container, which has no user namespace, could claim anybody's: the
    kernel lets everyone set what was never set. Once it is, that takes a capability. A login that is known stays.
    Docker's containers are its daemon's children, to whom this hands nothing on.
    """
    claim = f'[ "$known" = {_NO_LOGIN} ] && echo {uid} >/proc/self/loginuid'
    return ("/bin/sh", "-c", f'{{ read -r known </proc/self/loginuid; {claim}; }} 2>/dev/null; exec "$@"', "sandbox")


def inside(box: Box) -> list[str]:
    """What the container runs: nothing of the image's or the engine's environment reaches the command.

    The shell gives 126 and 127 their usual meaning.
    """
    own = {} if box.image == DEFAULT_IMAGE else {"PATH": ":".join((*OWN_PROGRAMS, ENVIRONMENT["PATH"]))}
    variables = [f"{name}={value}" for name, value in box.variables({**ENVIRONMENT, **own}).items()]
    return ["-i", *variables, "/bin/sh", "-c", 'cd -- "$0" && exec "$@"', box.directory, *box.command]


ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": HOME,
    "USER": "agent",
    "LANG": "C.UTF-8",
    "TMPDIR": "/tmp",  # noqa: S108  # the sandbox's own
    "PYTHONDONTWRITEBYTECODE": "1",
}


def _isolation(uid: int, parent: str, profile: Path) -> list[str]:
    return [
        *("--network", "none", "--ipc", "private", "--cgroupns", "private", "--hostname", "sandbox"),
        *("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
        *("--security-opt", f"seccomp={profile}", "--user", f"{uid}:{uid}", "--cgroup-parent", parent),
    ]


def _limits(limits: Limits) -> list[str]:
    memory, cpu_seconds = f"{limits.memory_bytes}b", max(1, limits.cpu_seconds)
    # Two limits of processor time, so that the end shows as SIGXCPU and not as SIGKILL.
    soft, hard = at_most(resource.RLIMIT_CPU, cpu_seconds), at_most(resource.RLIMIT_CPU, cpu_seconds + 2)
    rlimits = {
        "core": "0:0",
        "cpu": f"{soft}:{hard}",
        "fsize": _both(resource.RLIMIT_FSIZE, limits.file_bytes),
        "memlock": _both(resource.RLIMIT_MEMLOCK, 64 << 10),
        "nofile": _both(resource.RLIMIT_NOFILE, limits.open_files),
        # Its own user's, so the group's limit is the one that counts. Unset, an engine asks for more than it may have.
        "nproc": _both(resource.RLIMIT_NPROC, 1 << 14),
    }
    return [
        *("--memory", memory, "--memory-swap", memory, "--pids-limit", str(limits.processes + _INIT_TASKS)),
        *("--cpus", f"{max(0.01, limits.cpu_cores):.2f}", "--shm-size", f"{SMALL_TMPFS_BYTES}b"),
        *(word for name, value in rlimits.items() for word in ("--ulimit", f"{name}={value}")),
    ]


def _both(kind: int, wanted: int) -> str:
    value = at_most(kind, wanted)
    return f"{value}:{value}"


def _file_systems(box: Box) -> list[str]:
    # Some OCI runtimes prefer the mode of the directory in the image, where it exists: it should be the same there.
    words = []
    for place in ("/sys", "/sys/fs/cgroup"):  # instead of the machine's devices, modules and control groups
        words += ["--tmpfs", f"{place}:ro,noexec,nosuid,nodev,size=4096,mode=555"]
    for place, size in (("/tmp", box.tmp_bytes), (HOME, SMALL_TMPFS_BYTES)):  # noqa: S108  # the sandbox's own
        words += ["--tmpfs", f"{place}:rw,exec,nosuid,nodev,size={size},mode=1777"]
    for bind in box.binds:
        check_target(bind.target)
        words += _mount(bind.source, bind.target, writable=bind.writable)
    return [*words, *_mount(box.workspace, WORKSPACE, writable=box.writable)]


def _mount(source: Path, target: str, *, writable: bool) -> tuple[str, str]:
    if "," in f"{source}{target}":
        raise ValueError(f"{source} cannot be mounted: its name has a comma")
    return ("--mount", f"type=bind,source={source},target={target}" + ("" if writable else ",readonly"))
