"""Who may publish, who may commit, and that importing a module does nothing."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "codeagent"

PUBLISHERS = {"broker/publisher.py", "broker/delivery.py", "edge/accept.py", "relay/outbox.py", "relay/republish.py"}
"""Those that may send a record: the edge's commands, the relay's rows, the dead letters, and an operator's copies."""
DELTAS = {"broker/publisher.py", "cli/services.py"}
"""The one named exception: live deltas, lossy, handed out by the composition root."""


def calls(name: str) -> set[str]:
    """The modules that call a method or function of this name."""
    found: set[str] = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                function = node.func
                called = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
                if called == name:
                    found.add(str(path.relative_to(PACKAGE)))
    return found


def sends() -> set[str]:
    """The modules that call `send` or `send_all` on a publisher."""
    found: set[str] = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                owner = ast.unparse(node.func.value)
                if node.func.attr in {"send", "send_all"} and ("publisher" in owner or "producer" in owner):
                    found.add(str(path.relative_to(PACKAGE)))
    return found


def test_only_the_edge_the_relay_and_the_dead_letters_publish() -> None:
    assert sends() == PUBLISHERS


def test_only_deltas_are_sent_without_confirmation() -> None:
    assert calls("send_unconfirmed") == {"cli/services.py"}


def test_one_place_commits_a_step() -> None:
    assert calls("Steps") == {"workers/step.py"}


def test_one_place_records_an_outcome() -> None:
    statements = [path for path in PACKAGE.rglob("*.py") if "record_outcomes_v" in path.read_text()]
    assert [str(path.relative_to(PACKAGE)) for path in statements] == ["eventlog/effects.py"]


def test_one_place_appends_facts_of_the_control_plane() -> None:
    statements = [path for path in PACKAGE.rglob("*.py") if "append_fact_v" in path.read_text()]
    assert [str(path.relative_to(PACKAGE)) for path in statements] == ["eventlog/facts.py"]


def test_importing_every_module_opens_nothing_starts_nothing_and_prints_nothing() -> None:
    program = """
import socket, subprocess, threading, sys, pkgutil, importlib
def refuse(*arguments, **options):
    raise AssertionError("an import had a consequence")
socket.socket.connect = refuse
socket.socket.bind = refuse
subprocess.Popen.__init__ = refuse
threading.Thread.start = refuse
import codeagent
skipped = ("codeagent.__main__", "codeagent.eventlog.migrations", "codeagent.sandboxes.inside",
           "codeagent.providers.repair.mend")
for module in pkgutil.walk_packages(codeagent.__path__, "codeagent."):
    if not module.name.startswith(skipped):
        importlib.import_module(module.name)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr[-2_000:]
    assert done.stdout == ""
