"""Looks around inside a sandbox and prints what it finds as JSON: fact -> whether it holds."""

from __future__ import annotations

import ctypes
import importlib.util
import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

KNOWN_VARIABLES = {
    *("PATH", "HOME", "USER", "LANG", "LC_CTYPE", "TMPDIR", "PWD", "OLDPWD", "SHLVL", "_"),
    *("PYTHONDONTWRITEBYTECODE", "LD_LIBRARY_PATH"),
}
CLONE_NEWUSER = 0x10000000
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


def look() -> dict[str, bool]:
    probe = Path("/workspace/.probe")
    probe.write_text("x")
    probe.unlink()
    no_capabilities = all(int(status(name), 16) == 0 for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"))
    return {
        "unprivileged": os.getuid() != 0 and no_capabilities,
        "no_new_privileges": status("NoNewPrivs") == "1",
        "system_calls_filtered": status("Seccomp") == "2",
        "only_loopback": [name for _, name in socket.if_nameindex()] == ["lo"],
        "own_processes_only": sum(entry.name.isdigit() for entry in Path("/proc").iterdir()) <= 5,
        "root_read_only": refused(lambda: Path("/probe").write_text("x")),
        "usr_read_only": refused(lambda: Path("/usr/probe").write_text("x")),
        "dev_read_only": refused(lambda: Path("/dev/probe").write_text("x")),
        "no_host_accounts": refused(lambda: Path("/etc/shadow").read_text()),
        "no_host_variables": set(os.environ) <= KNOWN_VARIABLES,
        "no_vsock": refused(lambda: socket.socket(40, socket.SOCK_STREAM)),
        "no_new_namespaces": call("unshare", CLONE_NEWUSER),
        "no_keyrings": os.uname().machine not in KEYCTL or call("syscall", KEYCTL[os.uname().machine], 0, -3, 0),
        "workspace_writable": True,
        "pytest": importlib.util.find_spec("pytest") is not None,
        "git": shutil.which("git") is not None,
    }


if __name__ == "__main__":
    print(json.dumps(look()))  # noqa: T201
