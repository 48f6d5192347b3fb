"""Looks around inside a sandbox and prints what it finds as JSON: fact -> whether it holds.

Its words: the level the sandbox is to have, and the kernel of the machine, as /proc/version has it there.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import os
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path

KNOWN_VARIABLES = {
    *("PATH", "HOME", "USER", "LANG", "LC_CTYPE", "TMPDIR", "PWD", "OLDPWD", "SHLVL", "_"),
    *("PYTHONDONTWRITEBYTECODE", "LD_LIBRARY_PATH"),
}
CLONE_NEWUSER = 0x10000000
PR_GET_NO_NEW_PRIVS = 39
OWN_KERNEL = 3
KEYCTL = {"x86_64": 250, "aarch64": 219}


def status(name: str) -> str:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return line.split(":")[1].strip()
    return ""


def refused(action: Callable[[], object]) -> bool:
    try:
        action()
    except OSError:
        return True
    return False


def call(function: str, *arguments: int) -> bool:
    """Whether a function of the C library fails."""
    return bool(getattr(ctypes.CDLL(None, use_errno=True), function)(*arguments) == -1)


def kernel_facts(level: int, machines_kernel: str) -> dict[str, bool]:
    """What keeps commands from the machine's kernel: that it is another one, or how little of it they may call."""
    if level >= OWN_KERNEL:
        return {"own_kernel": Path("/proc/version").read_text() != machines_kernel}
    return {
        "system_calls_filtered": status("Seccomp") == "2",
        "no_new_namespaces": call("unshare", CLONE_NEWUSER),
        "no_keyrings": os.uname().machine not in KEYCTL or call("syscall", KEYCTL[os.uname().machine], 0, -3, 0),
    }


def look(level: int, machines_kernel: str) -> dict[str, bool]:
    probe = Path("/workspace/.probe")
    probe.write_text("x")
    probe.unlink()
    no_capabilities = all(int(status(name) or "0", 16) == 0 for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"))
    return {
        "unprivileged": os.getuid() != 0 and no_capabilities,
        "no_new_privileges": ctypes.CDLL(None).prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1,
        "only_loopback": [name for _, name in socket.if_nameindex()] == ["lo"],
        "own_processes_only": sum(entry.name.isdigit() for entry in Path("/proc").iterdir()) <= 5,
        "root_read_only": refused(lambda: Path("/probe").write_text("x")),
        "usr_read_only": refused(lambda: Path("/usr/probe").write_text("x")),
        "dev_read_only": refused(lambda: Path("/dev/probe").write_text("x")),
        "no_host_accounts": refused(lambda: Path("/etc/shadow").read_text()),
        "no_host_variables": set(os.environ) <= KNOWN_VARIABLES,
        "no_vsock": refused(lambda: socket.socket(40, socket.SOCK_STREAM)),
        "workspace_writable": True,
        "pytest": importlib.util.find_spec("pytest") is not None,
        "git": shutil.which("git") is not None,
        **kernel_facts(level, machines_kernel),
    }


if __name__ == "__main__":
    print(json.dumps(look(int(sys.argv[1]), sys.argv[2])))  # noqa: T201
