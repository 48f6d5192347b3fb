"""What the security documents claim, tests show: each one that they name is there, and runs."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
ASVS, API = (ROOT / "docs" / "compliance" / name for name in ("asvs-5.0.0.yaml", "owasp-api-2023.yaml"))
THREATS = ROOT / "docs" / "threat-model.md"


def _ids(text: str) -> set[str]:
    """`6.2: 1-3 5` stands for 6.2.1, 6.2.2, 6.2.3 and 6.2.5."""
    found = set()
    for line in text.strip().splitlines():
        section, _, numbers = line.strip().partition(":")
        for span in numbers.split():
            first, _, last = span.partition("-")
            found |= {f"v5.0.0-{section}.{number}" for number in range(int(first), int(last or first) + 1)}
    return found


LEVEL_1 = _ids(
    """
    1.2: 1-5
    1.3: 1-2
    1.5: 1
    2.1: 1
    2.2: 1-2
    2.3: 1
    3.2: 1-2
    3.3: 1
    3.4: 1-2
    3.5: 1-3
    4.1: 1
    4.4: 1
    5.2: 1-2
    5.3: 1-2
    6.1: 1
    6.2: 1-8
    6.3: 1-2
    6.4: 1-2
    7.2: 1-4
    7.4: 1-2
    8.1: 1
    8.2: 1-2
    8.3: 1
    9.1: 1-3
    9.2: 1
    10.4: 1-5
    11.3: 1-2
    11.4: 1
    12.1: 1
    12.2: 1-2
    13.4: 1
    14.2: 1
    14.3: 1
    15.1: 1
    15.2: 1
    15.3: 1
    """
)
"""Every requirement of level 1 in the published list."""
LEVEL_2 = _ids(
    """
    4.1: 2-3
    4.2: 1
    4.3: 1-2
    4.4: 2-4
    6.1: 2-3
    6.2: 9-12
    6.3: 3-4
    6.4: 3-4
    6.5: 1-5
    6.6: 1-3
    6.8: 1-4
    7.1: 1-3
    7.3: 1-2
    7.4: 3-5
    7.5: 1-2
    7.6: 1-2
    8.1: 2
    8.2: 3
    8.4: 1
    9.2: 2-4
    10.1: 1-2
    10.2: 1-2
    10.3: 1-4
    10.4: 6-11
    10.5: 1-5
    10.6: 1-2
    10.7: 1-3
    16.1: 1
    16.2: 1-5
    16.3: 1-4
    16.4: 1-3
    16.5: 1-3
    """
)
"""Every requirement of level 2 in the chapters on the API, authentication, sessions, authorization, tokens, OAuth, and
logging."""


def controls(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load(path.read_text())["controls"])


@functools.cache
def module(path: str) -> ast.Module:
    return ast.parse((ROOT / path).read_text())


def marks(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    """The marks of a test, a class or a module, as they are written."""
    if isinstance(node, ast.Module):
        for statement in node.body:
            if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "pytestmark":
                yield ast.unparse(statement.value)
    else:
        yield from (ast.unparse(decorator) for decorator in node.decorator_list)


def missing(test: str) -> str | None:
    """Why a test does not show what it is named for; None if it does."""
    path, *names = test.partition("[")[0].split("::")
    if not (ROOT / path).is_file():
        return f"{path} is not there"
    node: Any = module(path)
    nodes = [node]
    for name in names:
        node = next((each for each in node.body if getattr(each, "name", None) == name), None)
        if node is None:
            return f"{path} has no {name}"
        nodes.append(node)
    if names and not names[-1].startswith("test_"):
        return f"{names[-1]} is no test"
    held_back = [mark for each in nodes for mark in marks(each) if re.search(r"\b(skip|skipif|xfail)\b", mark)]
    return f"{test} is skipped: {held_back[0]}" if held_back else None


@pytest.mark.parametrize("path", [ASVS, API], ids=lambda path: path.stem)
def test_every_control_is_held_by_tests_or_says_why_not(path: Path) -> None:
    for control in controls(path):
        assert set(control) <= {"id", "level", "control", "status", "reason", "tests"}, control["id"]
        assert control["status"] in {"held", "not_applicable", "open"}, control["id"]
        if control["status"] == "held":
            assert control.get("tests"), f"{control['id']} is held by nothing"
        else:
            assert len(control.get("reason", "")) > 20, f"{control['id']} needs a reason"


@pytest.mark.parametrize("path", [ASVS, API], ids=lambda path: path.stem)
def test_every_test_that_a_control_names_is_there_and_runs(path: Path) -> None:
    named = [test for control in controls(path) for test in control.get("tests", ())]
    assert [reason for test in named if (reason := missing(test))] == []


def test_no_control_of_the_levels_is_left_out() -> None:
    found = controls(ASVS)
    assert len({control["id"] for control in found}) == len(found)
    by_level = {level: {control["id"] for control in found if control["level"] == level} for level in (1, 2)}
    assert by_level == {1: LEVEL_1, 2: LEVEL_2}
    assert (len(LEVEL_1), len(LEVEL_2)) == (70, 88)
    assert [control["id"] for control in controls(API)] == [f"API{number}:2023" for number in range(1, 11)]


def test_the_threat_model_names_tests_that_are_there() -> None:
    named = re.findall(r"`(tests/[\w/.]+\.py(?:::\w+)*)`", THREATS.read_text())
    assert len(named) > 40
    assert [reason for test in named if (reason := missing(test))] == []


def test_a_test_that_is_not_there_or_does_not_run_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.architecture.test_compliance.ROOT", tmp_path)
    module.cache_clear()
    (tmp_path / "a.py").write_text(
        "class TestA:\n    @pytest.mark.skipif(True)\n    def test_b(self): ...\n    def test_c(self): ...\n"
        "@pytest.mark.xfail\nasync def test_d(): ...\ndef helper(): ...\n"
    )
    (tmp_path / "b.py").write_text("pytestmark = [pytest.mark.skip]\ndef test_a(): ...\n")
    assert missing("a.py::TestA::test_c") is None
    assert missing("a.py") is None
    for wrong in (
        "c.py",
        "a.py::test_x",
        "a.py::TestA::test_b",
        "a.py::test_d",
        "a.py::helper",
        "b.py",
        "b.py::test_a",
    ):
        assert missing(wrong) is not None, wrong
    module.cache_clear()
