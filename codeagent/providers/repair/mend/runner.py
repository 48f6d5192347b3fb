"""Runs tests in a forked child, under time and memory limits, with edited files laid over the real ones in memory.

Nothing on the disk is changed while candidates are tried: a run that is killed leaves the repository as it was.
"""

from __future__ import annotations

import atexit
import json
import os
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import unittest
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from codeagent.providers.repair.mend.recording import Recorder, UnittestResult, pytest_plugin

MEMORY_BYTES = 2 * 1024**3
LARGEST_REPORT = 32 * 1024**2

# Executed in the child, and by every Python it starts: edited files are read from the overlay.
OVERLAY_HOOK = """
import importlib.machinery, json, os
_path = os.environ.get("CODEAGENT_REPAIR_OVERLAY", "")
if _path and os.path.exists(_path):
    with open(_path, encoding="utf-8") as _file:
        _overlay = json.load(_file)
    _loader = importlib.machinery.SourceFileLoader
    _get_data, _path_stats = _loader.get_data, _loader.path_stats
    def _overlaid_data(self, path):
        text = _overlay.get(os.path.realpath(path))
        return _get_data(self, path) if text is None else text.encode("utf-8")
    def _overlaid_stats(self, path):
        if os.path.realpath(path) in _overlay:
            raise OSError("edited in memory: there is no compiled file for it")
        return _path_stats(self, path)
    _loader.get_data, _loader.path_stats = _overlaid_data, _overlaid_stats
"""


@dataclass
class Report:
    """What a run showed. `tests` by id: outcome is passed, failed, error (not even collected) or skipped."""

    tests: dict[str, dict[str, Any]] = field(default_factory=dict)
    finished: bool = False
    exit_code: int = -1
    seconds: float = 0.0

    def ids(self, *outcomes: str) -> list[str]:
        return [name for name, facts in self.tests.items() if facts["outcome"] in outcomes]


@dataclass(frozen=True)
class Limits:
    test_seconds: float
    total_seconds: float


class Runner:
    """`kind` is pytest or unittest, `options` its extra arguments; `paths` go to the front of sys.path."""

    def __init__(self, root: str, kind: str, options: Sequence[str] = (), paths: Sequence[str] = ()) -> None:
        self.root = root
        self.kind = kind
        self.options = tuple(options)
        self.paths = tuple(paths)
        self._hasty = False
        self._folder = tempfile.mkdtemp(prefix="codeagent-repair-")
        atexit.register(shutil.rmtree, self._folder, ignore_errors=True)
        Path(self._folder, "sitecustomize.py").write_text(OVERLAY_HOOK, encoding="utf-8")

    def run(
        self,
        tests: Sequence[str] | None,
        limits: Limits,
        overlay: dict[str, str] | None = None,
        *,
        traced: bool = False,
        stop_at_first: bool = False,
    ) -> Report:
        """Runs `tests`, or all. The child and all it started are gone when this returns.

        With an overlay, one endless test ends the run: the edit is no good.
        """
        started = time.monotonic()
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            self._in_child(writer, tests, limits, overlay or {}, traced, stop_at_first)
        os.close(writer)
        _own_group(child)
        report = Report()
        received = _read_until(reader, started + limits.total_seconds)
        os.close(reader)
        _kill_group(child)
        _, status = os.waitpid(child, 0)
        report.exit_code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else -1
        for line in received.splitlines():
            facts = _parsed(line)
            if facts is not None and "end" in facts:
                report.finished = True
                report.exit_code = int(facts["end"])
            elif facts is not None:
                report.tests[facts["id"]] = facts
        report.seconds = time.monotonic() - started
        return report

    def _in_child(
        self, writer: int, tests: Sequence[str] | None, limits: Limits, overlay: dict[str, str],
        traced: bool, stop_at_first: bool,
    ) -> None:  # fmt: skip
        code = 1
        try:
            _own_group(0)
            _silence()
            _limit_memory()
            self._lay_over(overlay)
            self._hasty = bool(overlay) and not traced
            recorder = Recorder(self.root, writer, limits.test_seconds, traced)
            code = (self._pytest if self.kind == "pytest" else self._unittest)(recorder, tests, stop_at_first)
            recorder.write({"end": int(code)})
        finally:
            os._exit(int(code))

    def _lay_over(self, overlay: dict[str, str]) -> None:
        path = Path(self._folder, "overlay.json")
        absolute = {os.path.realpath(Path(self.root, name)): text for name, text in overlay.items()}
        path.write_text(json.dumps(absolute), encoding="utf-8")
        os.environ["CODEAGENT_REPAIR_OVERLAY"] = str(path)
        old = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = os.pathsep.join([self._folder, *self.paths, *([old] if old else [])])
        # Compiled files go beside the overlay: the next candidate finds them there, the repository stays clean.
        sys.pycache_prefix = os.environ["PYTHONPYCACHEPREFIX"] = str(Path(self._folder, "compiled"))
        sys.dont_write_bytecode = False
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        sys.path[:0] = [*(str(Path(self.root, item)) for item in self.paths), self.root]
        exec(compile(OVERLAY_HOOK, "overlay", "exec"), {})  # noqa: S102  # our own text, above

    def _pytest(self, recorder: Recorder, tests: Sequence[str] | None, stop_at_first: bool) -> int:
        import pytest  # noqa: PLC0415

        arguments = ["-q", "--tb=no", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:pytest_cov", *self.options]
        arguments += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
        arguments += ["-x"] if stop_at_first else []
        return int(pytest.main([*arguments, *(tests or ())], plugins=[pytest_plugin(recorder, self._hasty)]))

    def _unittest(self, recorder: Recorder, tests: Sequence[str] | None, stop_at_first: bool) -> int:
        wanted = None if tests is None else set(tests)
        chosen = unittest.TestSuite(
            test
            for test in discovered(str(Path(self.root, self.options[1])) if self.options else self.root)
            if wanted is None or test.id() in wanted or type(test).__name__ == "_FailedTest"
        )
        result = UnittestResult(recorder, stop_at_first, self._hasty)
        chosen.run(result)
        return 0 if result.wasSuccessful() else 1


def discovered(folder: str) -> Iterator[unittest.TestCase]:
    """Every test case unittest finds below a folder."""
    loader = unittest.TestLoader()
    waiting: list[Any] = [loader.discover(folder, pattern="*test*.py", top_level_dir=folder)]
    while waiting:
        item = waiting.pop(0)
        if isinstance(item, unittest.TestSuite):
            waiting[:0] = list(item)
        else:
            yield item


def _own_group(process: int) -> None:
    """Called in parent and child, whichever comes first: everything the tests start can be killed at once."""
    try:
        os.setpgid(process, process)
    except OSError:
        pass


def _limit_memory() -> None:
    """To `MEMORY_BYTES`, or to less where a sandbox has set less: a limit can be lowered only."""
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    memory = MEMORY_BYTES if most == resource.RLIM_INFINITY else min(MEMORY_BYTES, most)
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))


def _silence() -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)


def _read_until(reader: int, deadline: float) -> bytes:
    """Everything the child writes until it ends or its time does. Grandchildren may hold the pipe: "end" is enough."""
    received = bytearray()
    while len(received) < LARGEST_REPORT:
        ready, _, _ = select.select([reader], [], [], max(0.0, deadline - time.monotonic()))
        chunk = os.read(reader, 65536) if ready else b""
        if not chunk:
            break
        received += chunk
        if b'\n{"end": ' in received[-200:] or received.startswith(b'{"end": '):
            break
    return bytes(received)


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        facts = json.loads(line)
    except ValueError:
        return None
    return facts if isinstance(facts, dict) and ("id" in facts or "end" in facts) else None


def _kill_group(child: int) -> None:
    for kill in (os.killpg, os.kill):
        try:
            kill(child, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass
