"""One command in a sandbox of its own, without any server: what it is given, how it is shown, how it is ended."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from codeagent.cli.sandbox_machine import reap, reap_pods
from codeagent.errors import CodeAgentError, InvalidInput
from codeagent.sandboxes.bounds import limited
from codeagent.sandboxes.exec_once import exec_once
from codeagent.sandboxes.offers import OFFERS, Host
from codeagent.sandboxes.plain_text import PlainText
from codeagent.sandboxes.protocol import (
    DEFAULT_IMAGE,
    ExecRecord,
    IsolationLevel,
    Limits,
    OutputSink,
    Reason,
    SandboxUnavailable,
    Toolchain,
)
from codeagent.sandboxes.select import choose_driver
from codeagent.sandboxes.streams import discard
from codeagent.sandboxes.survey import is_owned

USAGE, TIMED_OUT, NOT_RUN, KILLED, BROKEN_PIPE = 2, 124, 125, 137, 141
"""Exit statuses, as other launchers have them; the command's own otherwise, and 128 + n for signal n."""

DEFAULT_SECONDS = 60.0
_PREFIX = "codeagent-sandbox-"
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class ExecRequest:
    """What a person asks for. `limits` and `env` are texts `NAME=VALUE`; `driver` as in `choose_driver`; `state_dir`
    is None for one that is made for this command and removed; `image` is one of the settings'."""

    command: tuple[str, ...]
    workspace: Path | None
    timeout_seconds: float | None
    limits: Sequence[str]
    env: Sequence[str]
    level: int
    driver: str
    state_dir: Path | None
    image: str = DEFAULT_IMAGE

    def bounds(self) -> Limits:
        """Raises `InvalidInput`."""
        given = dict(_pair(text, "--limit") for text in self.limits)
        if self.timeout_seconds is not None and "wall_seconds" in given:
            raise InvalidInput("--timeout and --limit wall_seconds say the same: give one of them")
        if self.timeout_seconds is not None:
            given["wall_seconds"] = f"{self.timeout_seconds:g}"
        return limited(Limits(wall_seconds=DEFAULT_SECONDS), given)

    def environment(self) -> dict[str, str]:
        """Raises `InvalidInput`."""
        pairs = dict(_pair(text, "--env") for text in self.env)
        for name, value in pairs.items():
            if _VARIABLE.fullmatch(name) is None:
                raise InvalidInput(f"--env {name!r} is no name of a variable: letters, digits and _, no digit first")
            if "\0" in value:
                raise InvalidInput(f"--env {name} contains a NUL")
        return pairs


def _pair(text: str, option: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise InvalidInput(f"{option} needs NAME=VALUE, not {text!r}")
    return name, value


def exec_in_sandbox(request: ExecRequest, *, as_json: bool) -> int:
    """Runs it, shows it, and returns the exit status. Nothing is left behind, however it ends."""
    stopped: list[int] = []
    try:
        limits, env = request.bounds(), request.environment()
        sink = discard if as_json else Terminal(sys.stdout.buffer, sys.stderr.buffer)
        with _state_dir(request.state_dir) as folder:
            record = asyncio.run(_execute(request, folder, limits, env, sink, stopped.append))
        if isinstance(sink, Terminal):
            sink.finish()
    except InvalidInput as error:
        return _refused([error.detail], USAGE, as_json=as_json)
    except SandboxUnavailable as error:
        return _refused(error.reasons, NOT_RUN, as_json=as_json)
    except CodeAgentError as error:
        return _refused([error.detail], NOT_RUN, as_json=as_json)
    except BrokenPipeError:
        return BROKEN_PIPE
    except asyncio.CancelledError:
        return _refused(["canceled before the command was started"], 128 + stopped[0], Reason.CANCELED, as_json=as_json)
    if as_json:
        _print(described(record))
    elif record.detail:
        sys.stderr.write(f"codeagent: {record.detail}\n")
    return exit_status(record, stopped)


@contextmanager
def _state_dir(given: Path | None) -> Iterator[Path]:
    if given is not None:
        yield given
        return
    for left in filter(_is_abandoned, Path(tempfile.gettempdir()).glob(f"{_PREFIX}*")):
        # Another command may be faster, and a cluster may not answer now: then it waits for another time.
        with suppress(CodeAgentError, FileNotFoundError):
            asyncio.run(reap(left))
            asyncio.run(reap_pods(left))
            shutil.rmtree(left)
    with tempfile.TemporaryDirectory(prefix=_PREFIX) as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)


def _is_abandoned(path: Path) -> bool:
    """Whether it is the directory of such a command that was killed. One without a lock may be about to get it; one of
    another user's is none of ours, whatever its name."""
    try:
        facts = path.lstat()
    except FileNotFoundError:  # its command has ended meanwhile
        return False
    is_ours = stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.geteuid()
    return is_ours and (path / "lock").exists() and not is_owned(path)


async def _execute(
    request: ExecRequest,
    folder: Path,
    limits: Limits,
    env: dict[str, str],
    sink: OutputSink,
    told: Callable[[int], None],
) -> ExecRecord:
    """SIGINT and SIGTERM end the command; before there is one they end the preparations, by `CancelledError`."""
    stop = asyncio.Event()

    def end(number: int) -> None:
        told(number)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, end, number)
    driver = await choose_driver(IsolationLevel(request.level), None, _host(request, folder), request.driver)
    try:
        await driver.reap(frozenset())  # what one that was killed has left here
        return await exec_once(
            driver,
            request.workspace,
            request.command,
            limits.wall_seconds,
            limits,
            env,
            sink,
            stop=stop,
            toolchain=Toolchain(image=request.image),
        )
    finally:
        await driver.shutdown()


def _host(request: ExecRequest, folder: Path) -> Host:
    """A driver that is never chosen unasked is told by the settings where its sandboxes are made, and they know where
    images are. Others do without, and without the time that reading takes. Raises `Misconfigured`, and `InvalidInput`
    for an image that there is not."""
    is_usual = request.image == DEFAULT_IMAGE
    if is_usual and all(offer.automatic for offer in OFFERS if offer.name == request.driver):
        return Host(folder)
    from codeagent.cli.sandbox_host import configured, host_of

    host = host_of(configured(), folder)
    if not is_usual and request.image not in host.images:
        there = ", ".join((DEFAULT_IMAGE, *host.images))
        raise InvalidInput(f"--image {request.image}: there is none, but {there} (CODEAGENT_SANDBOX_IMAGES)")
    # One that is not asked for may be missing.
    return replace(host, images={name: place for name, place in host.images.items() if name == request.image})


class Terminal:
    """Shows output as it comes. What goes to a terminal cannot steer it; what goes elsewhere is as it was written."""

    def __init__(self, stdout: BinaryIO, stderr: BinaryIO) -> None:
        self._files = {"stdout": stdout, "stderr": stderr}
        self._texts = {name: PlainText() for name, file in self._files.items() if file.isatty()}

    async def __call__(self, stream: str, piece: bytes) -> None:
        text = self._texts.get(stream)
        # Whoever reads slowly slows the command, and neither its clock nor a signal.
        await asyncio.to_thread(self._write, stream, piece if text is None else text.feed(piece).encode())

    def _write(self, stream: str, data: bytes) -> None:
        self._files[stream].write(data)
        self._files[stream].flush()

    def finish(self) -> None:
        for name, text in self._texts.items():
            self._write(name, text.finish().encode())


_REASON_WORDS = {Reason.CANCELED: "cancelled"}
"""Reasons that this record spells otherwise than the log does."""


def described(record: ExecRecord) -> dict[str, Any]:
    """The record as one JSON object; output as text, what is not UTF-8 replaced."""
    return {
        "reason": _REASON_WORDS.get(record.reason, record.reason.value),
        "exit_code": record.exit_code,
        "signal": record.signal,
        "stdout": record.stdout.decode(errors="replace"),
        "stderr": record.stderr.decode(errors="replace"),
        "stdout_seen_bytes": record.stdout_seen_bytes,
        "stderr_seen_bytes": record.stderr_seen_bytes,
        "limits_hit": list(record.limits_hit),
        "rusage": {
            "wall_seconds": record.wall_seconds,
            "cpu_seconds": record.cpu_seconds,
            "user_seconds": record.rusage.user_seconds,
            "system_seconds": record.rusage.system_seconds,
            "max_rss_bytes": record.rusage.max_rss_bytes,
            "peak_memory_bytes": record.peak_memory_bytes,
            "peak_processes": record.peak_processes,
            "throttled_seconds": record.throttled_seconds,
            "oom_kills": record.oom_kills,
        },
        "driver": record.driver,
        "level": int(record.level),
        "detail": record.detail,
    }


def exit_status(record: ExecRecord, signals: Sequence[int] = ()) -> int:
    """`signals`: what this process was told to end by."""
    if record.reason is Reason.CANCELED and signals:
        return 128 + signals[0]
    if record.reason is Reason.TIMEOUT:
        return TIMED_OUT
    if record.exit_code is not None:
        return record.exit_code
    return KILLED if record.reason in (Reason.OOM, Reason.OUTPUT_LIMIT, Reason.KILLED) else NOT_RUN


def _refused(reasons: Sequence[str], status: int, reason: Reason = Reason.SANDBOX_ERROR, *, as_json: bool) -> int:
    """The command did not run."""
    for each in reasons:
        sys.stderr.write(f"codeagent: {each}\n")
    if as_json:
        nothing = ExecRecord(reason, None, None, b"", b"", 0, 0, (), 0.0, 0.0, 0, "", IsolationLevel.NONE)
        _print(described(replace(nothing, detail="; ".join(reasons))))
    return status


def _print(document: dict[str, Any]) -> None:
    with suppress(BrokenPipeError):
        sys.stdout.write(json.dumps(document) + "\n")
        sys.stdout.flush()
