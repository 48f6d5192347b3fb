"""Looks around in the pod of a sandbox and prints what it finds as JSON: fact -> whether it holds.

Its words: the level the sandbox is to have; host and port of the API server.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

OWN_KERNEL = 3
READ_ALL = 3
KNOWN_VARIABLES = {
    *("PATH", "HOME", "USER", "LANG", "LC_CTYPE", "TMPDIR", "PYTHONDONTWRITEBYTECODE"),
}


def status(name: str) -> str:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return line.split(":")[1].strip()
    return ""


def fails(action: Callable[[], object]) -> bool:
    try:
        action()
    except OSError:
        return True
    return False


def gvisor() -> bool:
    """Whether the kernel's log begins as gVisor's does. No other kernel shows its log to everyone as a rule."""
    room = ctypes.create_string_buffer(1 << 16)
    size = ctypes.CDLL(None, use_errno=True).klogctl(READ_ALL, room, len(room))
    return size > 0 and b"Starting gVisor" in room.raw[:size]


METADATA = "169.254.169.254"
"""Where clouds tell a machine its secrets."""


def connect(host: str, port: int) -> None:
    socket.create_connection((host, port), timeout=2).close()


def look(level: int, host: str, port: int) -> dict[str, bool]:
    files = [Path("/"), Path("/usr"), Path("/etc"), Path("/run"), Path("/var")]
    facts = {
        "not_root": os.getuid() != 0 and os.getgid() != 0,
        "no_capabilities": all(int(status(name) or "1", 16) == 0 for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb")),
        "no_new_privileges": status("NoNewPrivs") == "1" or level >= OWN_KERNEL,
        "system_read_only": all(fails((place / ".probe").touch) for place in files if place.is_dir()),
        "workspace_writable": not fails(Path("/workspace/.probe").touch),
        "no_service_account": not Path("/var/run/secrets/kubernetes.io").exists(),
        "no_repository": not Path("/base.git").exists(),
        "environment_is_ours": not os.environ.keys() - KNOWN_VARIABLES,
        "cluster_unreachable": fails(lambda: connect(host, port)),
        "metadata_unreachable": fails(lambda: connect(METADATA, 80)),
        "no_names_resolved": fails(lambda: socket.getaddrinfo("kubernetes.default.svc", 443)),
        "few_processes": sum(name.isdigit() for name in os.listdir("/proc")) < 8,  # noqa: PTH208
    }
    if level >= OWN_KERNEL:
        return {**facts, "own_kernel": gvisor()}
    identity = Path("/proc/self/uid_map").read_text().split()
    return {**facts, "system_calls_filtered": status("Seccomp") == "2", "user_namespace": identity[1:2] != ["0"]}


if __name__ == "__main__":
    print(json.dumps(look(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]))))  # noqa: T201
