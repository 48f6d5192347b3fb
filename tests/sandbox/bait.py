"""What a machine has that no sandbox may reach, laid out to be found: secrets, listeners, processes, files."""

from __future__ import annotations

import ctypes
import json
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

MARK = "attackers-mark"
"""In the name of whatever an attack makes outside of its sandbox."""

PLACES = ("/", "/tmp", "/var/tmp", "/dev/shm", "/root", "/etc", "/usr", "/usr/bin", "/run", "/opt", "/var", "/home")
_IPC_CREAT, _IPC_RMID = 0o1000, 0
_KEY = "codeagent-bait"
_VSOCK, _VMADDR_CID_ANY, _VMADDR_CID_LOCAL = 40, 0xFFFFFFFF, 1


class Bait:
    """Laid out while the context is open. `secret` is what all of it says."""

    def __init__(self) -> None:
        self.secret = f"canary-{secrets.token_hex(12)}"
        self.visitors: list[str] = []
        self.facts: dict[str, Any] = {}
        self._victims: dict[str, subprocess.Popen[bytes]] = {}
        self._undo = ExitStack()

    def __enter__(self) -> Bait:
        with ExitStack() as undo:
            self.folder = Path(tempfile.mkdtemp(prefix="codeagent-bait-", dir="/var/tmp"))
            undo.callback(shutil.rmtree, self.folder)
            self.folder.chmod(0o755)
            self._files()
            self._descriptor(undo)
            for listen in (self._tcp, self._tcp6, self._udp, self._unix, self._abstract, self._vsock):
                listen(undo)
            self._shared_memory(undo)
            self._key(undo)
            self._variable(undo)
            undo.callback(self._end_victims)
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    def _files(self) -> None:
        """One that everybody may read, one that is root's, and a directory that everybody may write to."""
        for name, mode in (("open", 0o644), ("closed", 0o600)):
            path = self.folder / name
            path.write_text(f"{self.secret}\n")
            path.chmod(mode)
            self.facts[f"{name}_file"] = str(path)
        markers = self.folder / "markers"
        markers.mkdir()
        markers.chmod(0o1777)
        self.facts["markers"] = str(markers)

    def _descriptor(self, undo: ExitStack) -> None:
        """One that whoever starts a program without care hands on."""
        handle = os.open(self.facts["open_file"], os.O_RDONLY)
        os.set_inheritable(handle, True)
        undo.callback(os.close, handle)

    def _tcp(self, undo: ExitStack) -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        self.facts["tcp_port"] = listener.getsockname()[1]
        self._serve(undo, listener, "tcp")

    def _tcp6(self, undo: ExitStack) -> None:
        with suppress(OSError):  # a machine without IPv6 has nobody to visit
            listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
            self.facts["tcp6_port"] = listener.getsockname()[1]
            self._serve(undo, listener, "tcp6")

    def _udp(self, undo: ExitStack) -> None:
        listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        listener.bind(("127.0.0.1", 0))
        self.facts["udp_port"] = listener.getsockname()[1]
        self._serve(undo, listener, "udp")

    def _unix(self, undo: ExitStack) -> None:
        listener = socket.socket(socket.AF_UNIX)
        path = self.folder / "socket"
        listener.bind(str(path))
        path.chmod(0o777)
        listener.listen()
        self.facts["unix_path"] = str(path)
        self._serve(undo, listener, "unix")

    def _abstract(self, undo: ExitStack) -> None:
        listener = socket.socket(socket.AF_UNIX)
        self.facts["abstract"] = f"codeagent-bait-{secrets.token_hex(4)}"
        listener.bind("\0" + self.facts["abstract"])
        listener.listen()
        self._serve(undo, listener, "abstract")

    def _vsock(self, undo: ExitStack) -> None:
        with suppress(OSError):  # a kernel without it
            listener = socket.socket(_VSOCK, socket.SOCK_STREAM)
            listener.bind((_VMADDR_CID_ANY, 0xFFFFFFFF))
            listener.listen()
            self.facts["vsock_port"] = listener.getsockname()[1]
            self._serve(undo, listener, "vsock")

    def _serve(self, undo: ExitStack, listener: socket.socket, kind: str) -> None:
        """Notes who comes, and tells them the secret."""
        listener.settimeout(0.2)
        closing = threading.Event()

        def serve() -> None:
            while not closing.is_set():
                try:
                    if listener.type == socket.SOCK_DGRAM:
                        _, address = listener.recvfrom(100)
                        self.visitors.append(kind)
                        listener.sendto(self.secret.encode(), address)
                    else:
                        visitor, _ = listener.accept()
                        self.visitors.append(kind)
                        with visitor:
                            visitor.send(self.secret.encode())
                except TimeoutError:
                    continue
                except OSError:
                    if closing.is_set():
                        return

        thread = threading.Thread(target=serve)
        thread.start()
        undo.callback(listener.close)
        undo.callback(thread.join)
        undo.callback(closing.set)

    def _shared_memory(self, undo: ExitStack) -> None:
        """A System V segment that everybody may attach to, and a POSIX one."""
        libc = ctypes.CDLL(None, use_errno=True)
        libc.shmat.restype = ctypes.c_void_p
        libc.shmdt.argtypes = (ctypes.c_void_p,)
        key = 0x60000000 | secrets.randbits(24)
        segment = libc.shmget(key, 4096, _IPC_CREAT | 0o666)
        if segment < 0:
            raise OSError(ctypes.get_errno(), "shmget")
        undo.callback(libc.shmctl, segment, _IPC_RMID, None)
        address = libc.shmat(segment, None, 0)
        ctypes.memmove(address, self.secret.encode(), len(self.secret))
        libc.shmdt(address)
        self.facts["shm_key"] = key
        posix = Path("/dev/shm", f"codeagent-bait-{secrets.token_hex(4)}")
        posix.write_text(self.secret)
        posix.chmod(0o666)
        undo.callback(posix.unlink)
        self.facts["shm_path"] = str(posix)

    def _key(self, undo: ExitStack) -> None:
        """A key in the session's keyring, which programs inherit however their namespaces are made."""
        call, numbers = ctypes.CDLL(None, use_errno=True).syscall, {"x86_64": (248, 250), "aarch64": (217, 219)}
        add_key, keyctl = numbers[os.uname().machine]
        data = self.secret.encode()
        call(keyctl, 1, None)  # a session of this process's own, which its children inherit
        key = call(add_key, b"user", _KEY.encode(), data, len(data), -3)
        if key > 0:
            call(keyctl, 5, key, 0x3F3F3F3F)  # everybody may read it
            undo.callback(call, keyctl, 9, key, -3)
            self.facts["key"] = _KEY

    def _variable(self, undo: ExitStack) -> None:
        os.environ["ATTACKED_SECRET"] = self.secret
        undo.callback(os.environ.pop, "ATTACKED_SECRET")

    def keep_victims(self, uids: dict[str, int]) -> None:
        """A process of each of these users of the machine, by what it is to an attack. One that has died is replaced."""
        for kind, uid in uids.items():
            known = self._victims.get(kind)
            if known is None or known.poll() is not None:
                words = (
                    "setpriv",
                    "--pdeathsig",
                    "KILL",
                    f"--reuid={uid}",
                    f"--regid={uid}",
                    "--clear-groups",
                    "sleep",
                    "3600",
                )
                self._victims[kind] = subprocess.Popen(words, env={"BAIT": self.secret, "PATH": os.environ["PATH"]})
            self.facts[f"{kind}_pid"] = self._victims[kind].pid

    @property
    def victims(self) -> frozenset[int]:
        return frozenset(victim.pid for victim in self._victims.values())

    def _end_victims(self) -> None:
        for victim in self._victims.values():
            victim.kill()
            victim.wait()

    def for_programs(self, **more: object) -> str:
        """What the attacking programs are told."""
        return json.dumps({**self.facts, "host_pid": os.getpid(), "places": PLACES, "mark": MARK, **more})

    def harm(self) -> list[str]:
        """What has happened to all of this since it was last asked. Puts right what it can."""
        found = [f"a {kind} listener was reached" for kind in self.visitors]
        self.visitors.clear()
        found += [f"the process of the {kind} died" for kind, each in self._victims.items() if each.poll() is not None]
        for name in ("open_file", "closed_file"):
            if Path(self.facts[name]).read_text() != f"{self.secret}\n":
                found.append(f"{name} was changed")
                Path(self.facts[name]).write_text(f"{self.secret}\n")
        for path in _marked(Path(self.facts["markers"])):
            found.append(f"{path} was made on the machine")
            path.unlink()
        return found


def _marked(markers: Path) -> Iterator[Path]:
    yield from markers.iterdir()
    for place in (markers.parent, *PLACES):
        yield from Path(place).glob(f"*{MARK}*")
