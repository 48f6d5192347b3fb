"""How the tests share a machine's cores when several processes run them (`pytest -n 2`).

What stands in one folder runs in one process, in order: such tests share servers, and what they claim of the machine
(slots of sandboxes, mounts, control groups, ports). What is to be read at the end of the output is carried to the process
that writes it.

A pytest plugin; it changes nothing where one process runs everything.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

ALONE = {"tests/integration/sandboxes", "tests/sandbox", "tests/contract", "tests/acceptance"}
"""Folders that share one process, since their tests look at what is left on the machine."""

_notes: list[str] = []
_used: set[str] = set()


def note(line: str) -> None:
    """A line for the end of the output."""
    _notes.append(line)


def used(server: str) -> None:
    """A server, with its version, that the tests really ran on."""
    _used.add(server)


class _ByFolder(LoadScopeScheduling):
    def _split_scope(self, nodeid: str) -> str:
        folder = str(PurePosixPath(nodeid.partition("::")[0]).parent)
        return "machine" if folder in ALONE else folder


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    return _ByFolder(config, log)


def pytest_sessionfinish(session: pytest.Session) -> None:
    told: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
    if told is not None:
        told["notes"], told["used"] = _notes, sorted(_used)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """A process has ended. One that died has told nothing."""
    told = getattr(node, "workeroutput", {})
    _notes.extend(told.get("notes", ()))
    _used.update(told.get("used", ()))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for line in (*_notes, *sorted(_used)):
        terminalreporter.write_line(line)
