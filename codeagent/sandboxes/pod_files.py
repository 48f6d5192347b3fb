"""What the driver itself does in a pod's `repository` container: fill it, reach its files, and run git."""

from __future__ import annotations

import asyncio
import errno
import os
import tempfile
import threading
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from codeagent.sandboxes import archives, container_argv, repository
from codeagent.sandboxes.cluster import ClusterApi
from codeagent.sandboxes.outcome import last_words
from codeagent.sandboxes.pod_exec import Broken, end_all, perform
from codeagent.sandboxes.pods import REPOSITORY
from codeagent.sandboxes.protocol import Limits, SandboxFailure
from codeagent.sandboxes.uninterrupted import in_stoppable_thread, to_the_end

_WRONG_KIND = (errno.ENOTDIR, errno.ELOOP, errno.EISDIR, errno.EMLINK)
_FULL = (errno.ENOSPC, errno.EDQUOT)
_FILE_FAILED = 3
_FILE_SECONDS = 60.0


class Answer:
    """What a program in the container printed, up to a limit, and how it ended."""

    def __init__(self, most_bytes: int) -> None:
        self.code = 0
        self.stdout = b""
        self.stderr = b""
        self._most_bytes = most_bytes

    @property
    def too_long(self) -> bool:
        return len(self.stdout) > self._most_bytes

    async def take(self, stream: str, piece: bytes) -> None:
        if stream == "stdout":
            self.stdout += piece[: self._most_bytes + 1 - len(self.stdout)]
        else:
            self.stderr += piece[: self._most_bytes + 1 - len(self.stderr)]


async def ask(
    api: ClusterApi, pod: str, request: dict[str, Any], data: bytes, limits: Limits, most_bytes: int
) -> Answer:
    """Raises `SandboxFailure` if it does not end within the limits' wall time. Who does not wait for the end sees to
    it that there is one."""
    answer = Answer(most_bytes)
    try:
        async with asyncio.timeout(limits.wall_seconds):
            answer.code = await perform(api, pod, REPOSITORY, request, data, answer.take)
    except TimeoutError:
        await to_the_end(end_all(api, pod, REPOSITORY))
        raise Broken("a pod's files cannot be reached in time") from None
    except asyncio.CancelledError:
        with suppress(SandboxFailure):
            await to_the_end(end_all(api, pod, REPOSITORY))
        raise
    return answer


async def reach(
    api: ClusterApi,
    pod: str,
    request: dict[str, Any],
    data: bytes = b"",
    most_bytes: int = 1024,
    seconds: float = _FILE_SECONDS,
) -> bytes:
    """What a file access printed. Raises the failures of `SandboxDriver.read_file`."""
    answer = await ask(api, pod, request, data, Limits(wall_seconds=seconds), most_bytes)
    if answer.code == 0:
        return answer.stdout
    word = answer.stderr.strip()
    if answer.code != _FILE_FAILED or not word.isdigit():
        raise SandboxFailure(f"a pod's files cannot be reached: {last_words(answer.stderr)}")
    raise _explained(int(word))


def _explained(number: int) -> SandboxFailure:
    if number == errno.ENOENT:
        return SandboxFailure("there is no such file", reason="no_such_file", retryable=False)
    if number in _WRONG_KIND:
        why = "the path does not lead to a regular file through plain directories"
        return SandboxFailure(why, reason="not_a_file", retryable=False)
    if number in _FULL:
        return SandboxFailure("the workspace is full", reason="workspace_full", retryable=False)
    if number == errno.ENAMETOOLONG:
        return SandboxFailure("the path is too long", reason="bad_path", retryable=False)
    return SandboxFailure(f"file access failed: {os.strerror(number)}")


async def git(
    api: ClusterApi, pod: str, script: tuple[str, ...], environment: dict[str, str], data: bytes, limits: Limits
) -> Answer:
    """One of the scripts of `repository`. Nothing of it is left but in the repository."""
    request = {
        "do": "run",
        "argv": script,
        "cwd": (),
        "env": {**container_argv.ENVIRONMENT, **environment},
        "rlimits": {"CORE": (0, 0)},
    }
    return await ask(api, pod, request, data, repository.own_limits(limits), limits.patch_bytes)


async def fill(api: ClusterApi, pod: str, archive: Path, limits: Limits) -> None:
    """Puts the files of `archive` into the workspace, and an empty repository beside it. Raises `SandboxFailure`."""
    try:
        files, base = await in_stoppable_thread(partial(_packed, archive, limits))
    except OSError as error:
        raise SandboxFailure(f"the archive cannot be read: {error.strerror}") from error
    request, seconds = {"do": "fill", "sizes": (len(files), len(base))}, max(_FILE_SECONDS, limits.wall_seconds)
    await reach(api, pod, request, files + base, seconds=seconds)


def _packed(archive: Path, limits: Limits, canceled: threading.Event) -> tuple[bytes, bytes]:
    """The archive as this worker understands it, so that nothing but plain files is left to be understood inside."""
    owner = os.geteuid()
    with tempfile.TemporaryDirectory(prefix="codeagent-pod-") as folder:
        tree, base, packed = (Path(folder, name) for name in ("tree", "base", "packed"))
        tree.mkdir()
        base.mkdir()
        archives.Unpacker(tree, owner).unpack(archive, limits, canceled)
        archives.pack(tree, packed, limits)
        files = packed.read_bytes()
        repository.lay_out(base, owner, repository.LEFT_OUT_OF_DIFFS)
        archives.pack(base, packed, Limits())
        return files, packed.read_bytes()
