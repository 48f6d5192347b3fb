"""One worker's session: its requests, each beside the others, and the workspaces that end with it."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import shutil
import socket
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from codeagent.sandboxes.offers import OfferedDriver
from codeagent.sandboxes.protocol import OutputSink, Reason, SandboxFailure, SandboxUnavailable, Toolchain, Workspace
from codeagent.sandboxes.sandboxd.requests import Ceiling, Request, check_file, refused
from codeagent.sandboxes.sandboxd.wire import MOST_ASKED_BYTES, MOST_BODY_BYTES, Kind, Malformed, frame, read_frame
from codeagent.sandboxes.sandboxd.words import Answer, patch_words, record_words, report_words
from codeagent.sandboxes.uninterrupted import in_thread, to_the_end

MOST_REQUESTS = 256
MOST_HANDLES = 3
"""Of one request: its socket, and the files that it needs."""
_REQUEST_SECONDS = 30.0
_UNSENT_BYTES = 64 << 10
_HANDLES = 1 << 53

_log = logging.getLogger(__name__)
Files = Sequence[int]
Operation = Callable[[Request, Files, asyncio.StreamWriter], Awaitable[Answer]]


class Session:
    """What one connected worker may do. It names workspaces by numbers that mean nothing in another session."""

    def __init__(self, driver: OfferedDriver, ceiling: Ceiling, scratch: Path) -> None:
        self._driver = driver
        self._ceiling = ceiling
        self._scratch = scratch
        self._prefix = secrets.token_hex(8)
        self._opened: dict[int, tuple[str, Workspace]] = {}
        self._next = 0
        self._requests: set[asyncio.Task[None]] = set()
        self._operations: dict[str, Operation] = {
            "open": self._open,
            "run": self._run,
            "install": self._install,
            "read_file": self._read_file,
            "write_file": self._write_file,
            "diff": self._diff,
            "close": self._close,
            "take_back": self._take_back,
            "reap": self._reap,
            "fetch": self._fetch,
            "prove": self._prove,
            "fingerprint": self._fingerprint,
        }

    def begin(self, handles: list[int]) -> None:
        """Takes over the descriptors of one request. What is more than it may have open is closed unanswered."""
        try:
            if len(self._requests) >= MOST_REQUESTS or not handles:
                raise OSError
            channel = socket.socket(fileno=handles[0])
        except OSError:
            for handle in handles:
                os.close(handle)
            return
        task = asyncio.ensure_future(self._serve(channel, handles[1:]))
        self._requests.add(task)
        task.add_done_callback(self._requests.discard)

    async def end(self) -> None:
        """Ends every request and closes every workspace: its worker is gone."""
        requests = list(self._requests)
        for task in requests:
            task.cancel()
        await asyncio.gather(*requests, return_exceptions=True)
        for _, workspace in self._opened.values():
            try:
                await self._driver.close(workspace)
            except Exception:  # one that stays keeps no other
                _log.exception("a workspace was not closed")
        self._opened.clear()

    async def _serve(self, channel: socket.socket, files: Files) -> None:
        try:
            if (channel.family, channel.type) != (socket.AF_UNIX, socket.SOCK_STREAM):
                channel.close()
                return
            channel.setblocking(False)
            reader, writer = await asyncio.open_unix_connection(sock=channel)
            try:
                await self._answer(reader, writer, files)
            finally:
                writer.close()
        except (OSError, Malformed, asyncio.IncompleteReadError, TimeoutError) as error:
            _log.warning("a request was dropped: %s", type(error).__name__)
        finally:
            for file in files:
                os.close(file)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, files: Files) -> None:
        """Performs the request for as long as the worker holds the other end."""
        writer.transport.set_write_buffer_limits(high=_UNSENT_BYTES)
        async with asyncio.timeout(_REQUEST_SECONDS):
            kind, header, body = await read_frame(reader, MOST_ASKED_BYTES)
        if kind is not Kind.REQUEST:
            raise Malformed("no request")
        work = asyncio.ensure_future(self._perform(Request(header, body), files, writer))
        gone = asyncio.ensure_future(reader.read(1))
        gone.add_done_callback(_seen)
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            work.cancel()  # of no effect on what is done
            await to_the_end(_ended(work))
        if not work.cancelled():
            writer.write(work.result())
            await writer.drain()

    async def _perform(self, request: Request, files: Files, writer: asyncio.StreamWriter) -> bytes:
        told: dict[str, Any]
        try:
            operation = self._operations.get(request.text("operation"))
            if operation is None:
                raise refused("there is no such operation")
            return _result(*await operation(request, files, writer))
        except SandboxUnavailable as unavailable:
            told = {"unproven": unavailable.reasons}
        except SandboxFailure as failure:
            told = {"detail": failure.detail, "reason": failure.reason, "retryable": failure.retryable}
        except ConnectionError:
            raise
        except Exception:
            _log.exception("an operation failed")
            told = {"detail": "the sandbox failed", "reason": "sandbox_error", "retryable": True}
        return frame(Kind.FAILURE, told)

    def _own(self, request: Request) -> Workspace:
        found = self._opened.get(request.number("handle", _HANDLES))
        if found is None:
            raise SandboxFailure("the workspace is closed", reason="closed", retryable=False)
        return found[1]

    async def _open(self, request: Request, files: Files, _writer: asyncio.StreamWriter) -> Answer:
        name, limits = request.workspace_id(), request.limits(self._ceiling.installing)
        image, with_dependencies = request.text("image"), request.flag("dependencies")
        request.done()
        archive = _handed(files, 0)
        toolchain = Toolchain(image, _handed(files, 1) if with_dependencies else None)
        # Another session's workspace of that name is another workspace.
        workspace = await self._driver.open(f"{self._prefix}/{name}", archive, request.body, limits, toolchain)
        self._forget(lambda known: known == name)
        self._next += 1
        self._opened[self._next] = (name, workspace)
        return {"handle": self._next, "name": workspace.name}, b""

    def _forget(self, is_gone: Callable[[str], bool]) -> None:
        self._opened = {handle: held for handle, held in self._opened.items() if not is_gone(held[0])}

    async def _run(self, request: Request, _files: Files, writer: asyncio.StreamWriter) -> Answer:
        workspace, spec = self._own(request), request.command(self._ceiling.most, self._ceiling.egress)
        request.done()
        sink, told = _relay(writer)
        return record_words(await self._driver.run(workspace, spec, sink), told)

    async def _install(self, request: Request, files: Files, writer: asyncio.StreamWriter) -> Answer:
        workspace = self._own(request)
        spec = request.command(self._ceiling.installing, self._ceiling.registries)
        request.done()
        target = check_file(files, 0, writable=True)
        sink, told = _relay(writer)
        with self._made() as made:
            record = await self._driver.install(workspace, spec, made, sink)
            if record.reason is Reason.OK:
                await in_thread(_copy, made, target)
        return record_words(record, told)

    async def _read_file(self, request: Request, _files: Files, _writer: asyncio.StreamWriter) -> Answer:
        workspace, path = self._own(request), request.text("path")
        most = request.number("limit_bytes", MOST_BODY_BYTES)
        request.done()
        return {}, await self._driver.read_file(workspace, path, most)

    async def _write_file(self, request: Request, _files: Files, _writer: asyncio.StreamWriter) -> Answer:
        workspace, path = self._own(request), request.text("path")
        request.done()
        await self._driver.write_file(workspace, path, request.body)
        return {}, b""

    async def _diff(self, request: Request, _files: Files, _writer: asyncio.StreamWriter) -> Answer:
        workspace, limits = self._own(request), request.limits(self._ceiling.most)
        request.done()
        return patch_words(await self._driver.diff(workspace, limits))

    async def _close(self, request: Request, _files: Files, _writer: asyncio.StreamWriter) -> Answer:
        handle = request.number("handle", _HANDLES)
        request.done()
        if handle in self._opened:
            await self._driver.close(self._opened[handle][1])
            self._opened.pop(handle, None)
        return {}, b""

    async def _take_back(self, request: Request, _files: Files, _writer: asyncio.StreamWriter) -> Answer:
        """Of an `open` that nobody waits for any more: it may have come to its end before that was known."""
        name = request.workspace_id()
        request.done()
        return {"removed": await self._remove(lambda known: known == name)}, b""

    async def _reap(self, request: Request, _files: Files, _writer: asyncio.StreamWriter) -> Answer:
        """Of this session: what other workers have is not this one's to remove."""
        keep = frozenset(request.words("keep"))
        request.done()
        return {"removed": await self._remove(lambda known: known not in keep)}, b""

    async def _remove(self, is_doomed: Callable[[str], bool]) -> int:
        doomed = {handle: held for handle, held in self._opened.items() if is_doomed(held[0])}
        for handle, (_, workspace) in doomed.items():
            await self._driver.close(workspace)
            self._opened.pop(handle, None)
        return len(doomed)

    async def _fetch(self, request: Request, files: Files, _writer: asyncio.StreamWriter) -> Answer:
        url, ref = request.text("url"), request.text("ref")
        credential, limits = request.credential(), request.limits(self._ceiling.most)
        request.done()
        target = check_file(files, 0, writable=True)
        with self._made() as made:
            await self._driver.fetch(url, ref, made, limits, credential)
            await in_thread(_copy, made, target)
        return {}, b""

    @contextmanager
    def _made(self) -> Iterator[Path]:
        """Where an archive can be made that goes to the worker, and is gone afterwards."""
        made = self._scratch / f"{self._prefix}-{secrets.token_hex(8)}.tar.gz"
        try:
            yield made
        finally:
            made.unlink(missing_ok=True)

    async def _prove(self, request: Request, _files: Files, _writer: asyncio.StreamWriter) -> Answer:
        request.done()
        return report_words(await self._driver.probe(again=True)), b""

    async def _fingerprint(self, request: Request, _files: Files, _writer: asyncio.StreamWriter) -> Answer:
        request.done()
        return {"fingerprint": await self._driver.fingerprint()}, b""


def _handed(files: Files, place: int) -> Path:
    """A file that the worker may read, as a path of this process."""
    return Path(f"/proc/self/fd/{check_file(files, place, writable=False)}")


def _relay(writer: asyncio.StreamWriter) -> tuple[OutputSink, dict[str, int]]:
    """Sends output on as it comes, and counts it."""
    told = {"stdout": 0, "stderr": 0}

    async def sink(stream: str, piece: bytes) -> None:
        told[stream] += len(piece)
        writer.write(frame(Kind.STDERR if stream == "stderr" else Kind.STDOUT, {}, piece))
        await writer.drain()

    return sink, told


def _result(header: dict[str, Any], body: bytes) -> bytes:
    try:
        return frame(Kind.RESULT, header, body)
    except Malformed:
        detail = "the answer is larger than an answer may be"
        raise SandboxFailure(detail, reason="too_large", retryable=False) from None


def _seen(task: asyncio.Task[bytes]) -> None:
    if not task.cancelled():
        task.exception()


async def _ended(task: asyncio.Task[bytes]) -> None:
    with suppress(asyncio.CancelledError, Exception):
        await task


def _copy(source: Path, target: int) -> None:
    """Through the worker's own descriptor, which is never opened again. Blocking."""
    try:
        with source.open("rb") as made, os.fdopen(os.dup(target), "wb") as kept:
            shutil.copyfileobj(made, kept, 1 << 20)
    except OSError as error:
        raise SandboxFailure(f"the archive cannot be kept: {error.strerror}", reason="fetch_failed") from error
