"""What surrounds a workspace inside: the machine's /usr, an /etc of our own, and covers over telling parts of /proc."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from codeagent.sandboxes.box import HOME, WORKSPACE, Bind, Link

_USR = Path("/usr")
_TOP_LEVEL = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_COVERED_FILES = """
    kallsyms cmdline keys key-users config.gz timer_list interrupts softirqs kpagecount kpageflags kpagecgroup iomem
    ioports partitions diskstats mtrr vmallocinfo slabinfo pagetypeinfo buddyinfo zoneinfo consoles sched_debug
    latency_stats schedstat modules swaps kcore sysrq-trigger
"""
_COVERED_DIRECTORIES = ("fs", "acpi", "driver", "tty", "scsi", "asound", "bus", "irq", "dynamic_debug")
_CERTIFICATES = (
    Path("/etc/ssl/certs/ca-certificates.crt"),
    Path("/etc/pki/tls/certs/ca-bundle.crt"),
    Path("/etc/ssl/cert.pem"),
)
ALTERNATIVES = Path("/etc/alternatives")
"""Links that names in /usr/bin may lead through."""

PROGRAM_DIRECTORIES = "/usr/local/bin:/usr/bin:/bin"
CERTIFICATES_INSIDE = "/etc/ssl/certs/ca-certificates.crt"

_ETC = {
    "passwd": f"root:x:0:0:root:/:/usr/sbin/nologin\nagent:x:1000:1000:agent:{HOME}:/bin/sh\n",
    "group": "root:x:0:\nagent:x:1000:\n",
    "hosts": "127.0.0.1 localhost sandbox\n::1 localhost\n",
    "hostname": "sandbox\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    "resolv.conf": "",
    "gitconfig": (
        f"[user]\n\tname = agent\n\temail = agent@sandbox\n[init]\n\tdefaultBranch = main\n"
        f"[safe]\n\tdirectory = {WORKSPACE}\n[advice]\n\tdetachedHead = false\n"
    ),
}


def top_level() -> tuple[Bind | Link, ...]:
    """/usr and the names that lead into it, as this machine has them."""
    parts: list[Bind | Link] = [Bind(_USR, str(_USR))]
    for name in _TOP_LEVEL:
        path = Path("/", name)
        if path.is_symlink():
            parts.append(Link(str(path.readlink()), str(path)))
        elif path.is_dir():
            parts.append(Bind(path, str(path)))
    return tuple(parts)


def write_etc(directory: Path) -> Path:
    """Makes the /etc of sandboxes that see the machine's /usr: our own, with its linker's cache. Blocking."""
    write_own_etc(directory)
    cache = Path("/etc/ld.so.cache")
    if cache.is_file():
        _write(directory / "ld.so.cache", cache.read_bytes())
    if ALTERNATIVES.is_dir():
        (directory / ALTERNATIVES.name).mkdir()  # a place to show the machine's own
    open_up(directory)
    return directory


def write_own_etc(directory: Path) -> Path:
    """Makes what is the same in the /etc of every sandbox. Blocking. From the machine come only CA files."""
    if directory.exists():
        shutil.rmtree(directory)
    directory.mkdir(mode=0o755)
    for name, text in _ETC.items():
        _write(directory / name, text.encode())
    certificates = machine_certificates()
    if certificates is not None:
        target = directory / CERTIFICATES_INSIDE.removeprefix("/etc/")
        target.parent.mkdir(parents=True)
        _write(target, certificates.read_bytes())
    open_up(directory)
    return directory


def machine_certificates() -> Path | None:
    """The authorities that this machine believes, as one PEM file."""
    return next((path for path in _CERTIFICATES if path.is_file()), None)


def covers(directory: Path) -> tuple[tuple[Path, str], ...]:
    """Makes an empty file and an empty directory, and pairs them with what they cover under /proc. Blocking."""
    file, folder = directory / "empty", directory / "emptydir"
    _write(file, b"")
    folder.mkdir(mode=0o755, exist_ok=True)
    open_up(directory)
    files = tuple((file, f"/proc/{name}") for name in _COVERED_FILES.split() if Path("/proc", name).is_file())
    folders = tuple((folder, f"/proc/{name}") for name in _COVERED_DIRECTORIES if Path("/proc", name).is_dir())
    return files + folders


def telling() -> list[str]:
    """The paths under /proc of this machine that say more of it than a sandbox has to know."""
    return [
        f"/proc/{name}" for name in (*_COVERED_FILES.split(), *_COVERED_DIRECTORIES) if Path("/proc", name).exists()
    ]


def open_up(directory: Path) -> None:
    """Lets every user read what lies in `directory`, whatever the umask was."""
    for folder, _, files in os.walk(directory):
        Path(folder).chmod(0o755)
        for name in files:
            path = Path(folder, name)
            if not path.is_symlink():
                path.chmod(0o755 if path.stat().st_mode & 0o111 else 0o644)


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    path.chmod(0o644)


def unreachable(path: Path) -> Path | None:
    """The first directory on the way to `path` that other users may not pass, or `None`."""
    for folder in reversed((path.resolve() / "_").parents):
        if folder.exists() and not folder.stat().st_mode & 0o001:
            return folder
    return None
