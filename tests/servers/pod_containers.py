"""Containers of a stub cluster: processes in namespaces of their own, on memory file systems of the sizes asked for."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

SYSTEM = [
    *("--tmpfs", "/", "--ro-bind", "/usr", "/usr", "--ro-bind", "/etc", "/etc", "--symlink", "usr/bin", "/bin"),
    *("--symlink", "usr/lib", "/lib", "--symlink", "usr/lib64", "/lib64", "--proc", "/proc", "--dev", "/dev"),
]
LAUNCHERS = ("bwrap", "setpriv")
APART = ["--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-net", "--unshare-cgroup-try", "--as-pid-1"]


class Container:
    """One of them. `pid`: of its first process, as the machine counts."""

    def __init__(self, spec: dict[str, Any], volumes: dict[str, Path], uid: int) -> None:
        reads, writes = os.pipe()
        self._user = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--no-new-privs"]
        self._user += ["--bounding-set=-all", "--inh-caps=-all"]
        mounts = [w for m in spec["volumeMounts"] for w in ("--bind", str(volumes[m["name"]]), m["mountPath"])]
        words = ["bwrap", *APART, "--die-with-parent", "--info-fd", str(writes), *SYSTEM, *mounts, "--remount-ro", "/"]
        self._process = subprocess.Popen(
            [*words, "--clearenv", "--setenv", "PATH", "/usr/bin:/bin", *self._user, *spec["command"]],
            pass_fds=(writes,),
            stdin=subprocess.DEVNULL,
        )
        os.close(writes)
        with os.fdopen(reads) as told:
            self.pid = int(json.load(told)["child-pid"])
        # Told before the file system is made: whoever entered now might find this machine's, or half of none.
        while Path(f"/proc/{self.pid}/exe").readlink().name in LAUNCHERS:
            time.sleep(0.002)

    async def start(self, words: list[str]) -> asyncio.subprocess.Process:
        """A further process in the container."""
        inside = ["nsenter", "-t", str(self.pid), "-m", "-p", "-n", "-i", "-u", "--root", "--wd"]
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(
            *inside, *self._user, *words, stdin=pipe, stdout=pipe, stderr=pipe, env={"PATH": "/usr/bin:/bin"}
        )

    def end(self) -> None:
        # All of its namespace dies with it, and bubblewrap then ends by itself.
        os.kill(self.pid, signal.SIGKILL)
        self._process.wait()


class PodOnThisMachine:
    """A pod's containers and volumes, by what its manifest says."""

    def __init__(self, spec: dict[str, Any], uid: int) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="codeagent-pod-"))
        self._volumes: dict[str, Path] = {}
        for volume in spec["volumes"]:
            place = self._folder / volume["name"]
            place.mkdir()
            size = volume["emptyDir"]["sizeLimit"]
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=0777", "tmpfs", place], check=True)
            self._volumes[volume["name"]] = place
        self._uid = uid
        self.containers = {box["name"]: Container(box, self._volumes, uid) for box in spec["containers"]}

    def restart(self, box: dict[str, Any]) -> None:
        self.containers[box["name"]].end()
        self.containers[box["name"]] = Container(box, self._volumes, self._uid)

    def end(self) -> None:
        for container in self.containers.values():
            container.end()
        for place in self._volumes.values():
            subprocess.run(["umount", "--lazy", place], check=True)
            place.rmdir()
        self._folder.rmdir()
