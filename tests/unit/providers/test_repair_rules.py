"""Each rule offers the edit it is there for, as a change of a few characters that keeps the rest as it was."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

from codeagent.providers.repair.mend.candidates import ranked
from codeagent.providers.repair.mend.evidence import Evidence
from codeagent.providers.repair.mend.project import Project
from codeagent.providers.repair.mend.snippets import changed_lines, edits_between
from codeagent.providers.repair.mend.source import SourceFile, split_lines

PAIRS: dict[str, tuple[str, str]] = {
    "comparison": ("def f(a, b):\n    return a < b  # less\n", "def f(a, b):\n    return a <= b  # less\n"),
    "comparison in brackets": ("def f(a):\n    return (a) == (\n        1)\n", "def f(a):\n    return (a) != (\n        1)\n"),
    "identity": ("def f(a):\n    return a is 'x'\n", "def f(a):\n    return a == 'x'\n"),
    "membership": ("def f(a, b):\n    return a in b\n", "def f(a, b):\n    return a not in b\n"),
    "arithmetic": ("def f(a, b):\n    return a + b\n", "def f(a, b):\n    return a - b\n"),
    "operand order": ("def f(a, b):\n    return a - (b + 1)\n", "def f(a, b):\n    return (b + 1) - (a)\n"),
    "precedence": ("def f(a, b):\n    return a + b / 2\n", "def f(a, b):\n    return (a + b) / 2\n"),
    "logic": ("def f(a, b):\n    return a and b\n", "def f(a, b):\n    return a or b\n"),
    "negation": ("def f(a):\n    if a:\n        return 1\n", "def f(a):\n    if not (a):\n        return 1\n"),
    "sign": ("def f(a):\n    return -a\n", "def f(a):\n    return a\n"),
    "summing up": ("def f(a):\n    t = 0\n    for x in a:\n        t = x\n    return t\n",
                   "def f(a):\n    t = 0\n    for x in a:\n        t += x\n    return t\n"),
    "number": ("def f(a):\n    return a[1]\n", "def f(a):\n    return a[0]\n"),
    "truth": ("def f():\n    return True\n", "def f():\n    return False\n"),
    "bound": ("def f(n):\n    return list(range(n))\n", "def f(n):\n    return list(range(n + 1))\n"),
    "superfluous term": ("def f(a):\n    return a[len(a) - 1]\n", "def f(a):\n    return a[len(a)]\n"),
    "arguments": ("def f(a, b):\n    return g(a, b)\n", "def f(a, b):\n    return g(b, a)\n"),
    "sister function": ("def f(a):\n    return min(a)\n", "def f(a):\n    return max(a)\n"),
    "sister method": ("def f(a):\n    return a.lstrip()\n", "def f(a):\n    return a.rstrip()\n"),
    "descending": ("def f(a):\n    return sorted(a)\n", "def f(a):\n    return sorted(a, reverse=True)\n"),
    "name": ("def f(start, stop):\n    return start\n", "def f(start, stop):\n    return stop\n"),
    "missing return": ("def f(a):\n    b = a * 2\n", "def f(a):\n    b = a * 2\n    return b\n"),
    "return value dropped": ("def f(a):\n    g(a)\n", "def f(a):\n    return g(a)\n"),
    "return too deep": ("def f(a):\n    for x in a:\n        g(x)\n        return a\n",
                        "def f(a):\n    for x in a:\n        g(x)\n    return a\n"),
    "break": ("def f(a):\n    for x in a:\n        break\n", "def f(a):\n    for x in a:\n        continue\n"),
    "sorted in place": ("def f(a):\n    return a.sort()\n", "def f(a):\n    return sorted(a)\n"),
    "self": ("class A:\n    def f():\n        return 1\n", "class A:\n    def f(self):\n        return 1\n"),
    "self before others": ("class A:\n    def f(x):\n        return x\n", "class A:\n    def f(self, x):\n        return x\n"),
    "shared default": ("def f(a=[]):\n    return a\n",
                       "def f(a=None):\n    if a is None:\n        a = []\n    return a\n"),
    "rows that are one": ("def f(n):\n    return [[0] * n] * n\n", "def f(n):\n    return [[0] * n for _ in range(n)]\n"),
    "late binding": ("def f():\n    return [lambda: i for i in range(3)]\n",
                     "def f():\n    return [lambda i=i: i for i in range(3)]\n"),
    "format string": ("def f(name):\n    return 'hi {name}'\n", "def f(name):\n    return f'hi {name}'\n"),
    "slice": ("def f(a):\n    return a[1:]\n", "def f(a):\n    return a[:1]\n"),
    "rows and columns": ("def f(g, x, y):\n    return g[x][y]\n", "def f(g, x, y):\n    return g[y][x]\n"),
    "branches": ("def f(a):\n    return 1 if a else 2\n", "def f(a):\n    return 2 if a else 1\n"),
    "global": ("N = 0\n\n\ndef f():\n    N += 1\n    return N\n", "N = 0\n\n\ndef f():\n    global N\n    N += 1\n    return N\n"),
    "guard": ("def f(a):\n    return a[0]\n", "def f(a):\n    if not a:\n        return None\n    return a[0]\n"),
    "other scripts": ("def f(größe, ß):\n    return 'ü', größe < ß\n", "def f(größe, ß):\n    return 'ü', größe <= ß\n"),
}  # fmt: skip

SYNTAX: dict[str, tuple[str, str]] = {
    "colon": ("if True\n    x = 1\n", "if True:\n    x = 1\n"),
    "bracket": ("x = (1 + 2\ny = 3\n", "x = (1 + 2)\ny = 3\n"),
    "too many brackets": ("x = (1 + 2))\n", "x = (1 + 2)\n"),
    "quote": ("x = 'abc\n", "x = 'abc'\n"),
    "assignment for comparison": ("x = 1\nif x = 1:\n    y = 2\n", "x = 1\nif x == 1:\n    y = 2\n"),
    "else if": (
        "x = 1\nif x:\n    y = 1\nelse if not x:\n    y = 2\n",
        "x = 1\nif x:\n    y = 1\nelif not x:\n    y = 2\n",
    ),
    "indentation": ("def f():\nreturn 1\n", "def f():\n    return 1\n"),
    "unindent": ("def f():\n    x = 1\n      y = 2\n", "def f():\n    x = 1\n    y = 2\n"),
}


def offered(folder: Path, text: str, error: str = "AssertionError", message: str = "") -> list[str]:
    """What one gets from the code with every line under suspicion, the likeliest first."""
    (folder / "code.py").write_text(text)
    project = Project(str(folder))
    lines = list(range(1, len(split_lines(text)) + 1))
    facts: dict[str, Any] = {"id": "t", "outcome": "failed", "error": error, "message": message, "frames": []}
    evidence = Evidence(project, [{**facts, "lines": {"code.py": lines}}], [])
    return [candidate.apply(text) for _, candidate in ranked(project, evidence)]


@pytest.mark.parametrize("name", PAIRS)
def test_a_rule_offers_its_repair(name: str, tmp_path: Path) -> None:
    wrong, right = PAIRS[name]
    assert right in offered(tmp_path, wrong)


@pytest.mark.parametrize("name", SYNTAX)
def test_a_file_that_does_not_parse_is_offered_what_it_lacks(name: str, tmp_path: Path) -> None:
    wrong, right = SYNTAX[name]
    parsing = [text for text in offered(tmp_path, wrong) if parses(text)]
    assert right in parsing


def parses(text: str) -> bool:
    try:
        ast.parse(text)
    except SyntaxError:
        return False
    return True


@pytest.mark.parametrize(
    ("wrong", "right", "error", "message"),
    [
        ("def f():\n    return math.pi\n", "import math\ndef f():\n    return math.pi\n", "NameError", "name 'math' is not defined"),
        ("def f():\n    return deque()\n", "from collections import deque\ndef f():\n    return deque()\n", "NameError",
         "name 'deque' is not defined"),
        ("def f(a):\n    try:\n        return a['x']\n    except IndexError:\n        return 0\n",
         "def f(a):\n    try:\n        return a['x']\n    except KeyError:\n        return 0\n", "KeyError", "'x'"),
        ("class A:\n    def __init__(self):\n        self.title = 1\n\n\ndef f(a):\n    return a.name\n",
         "class A:\n    def __init__(self):\n        self.title = 1\n\n\ndef f(a):\n    return a.title\n", "AttributeError",
         "'A' object has no attribute 'name'"),
    ],
)  # fmt: skip
def test_the_error_leads_to_its_repair_among_the_first(
    wrong: str, right: str, error: str, message: str, tmp_path: Path
) -> None:
    assert right in offered(tmp_path, wrong, error, message)[:8]


def test_tests_are_never_edited(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    for name in ("test_a.py", "a_test.py", "conftest.py", "tests/helper.py"):
        (tmp_path / name).write_text("x = 1\n")
    (tmp_path / "code.py").write_text("x = 1\n")
    assert set(Project(str(tmp_path)).files) == {"code.py"}


def test_lines_run_by_failing_tests_only_are_the_most_suspicious(tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text("a = 1\nb = 2\nc = 3\n")
    project = Project(str(tmp_path))
    facts = {"error": "", "message": "", "frames": [], "outcome": "failed"}
    failing = [{**facts, "id": "f", "lines": {"code.py": [1, 2]}}]
    passing = [{**facts, "id": str(number), "outcome": "passed", "lines": {"code.py": [1]}} for number in range(3)]
    evidence = Evidence(project, failing, passing)
    assert evidence.top_lines(3)[0] == ("code.py", 2)
    assert evidence.suspicion[("code.py", 2)] == 2 * evidence.suspicion[("code.py", 1)]


def test_edits_name_a_piece_of_text_that_occurs_once(tmp_path: Path) -> None:
    before = "def f():\n    x = 1\n    return x\n\n\ndef g():\n    x = 1\n    return x\n"
    after = before[: before.rindex("x = 1")] + "x = 2\n    return x\n"
    (edit,) = edits_between({"a.py": before}, {"a.py": after})
    assert before.count(edit["old"]) == 1
    assert before.replace(edit["old"], edit["new"]) == after


def test_several_edits_of_a_file_apply_one_after_the_other() -> None:
    before = "".join(f"line {number}\n" for number in range(9)) + "last"
    after = before.replace("line 2\n", "line two\nand more\n").replace("line 7\n", "").replace("last", "end")
    current = before
    for edit in edits_between({"a": before}, {"a": after}):
        assert current.count(edit["old"]) == 1
        current = current.replace(edit["old"], edit["new"])
    assert current == after


def test_people_see_the_indentation_that_changed_and_no_other() -> None:
    assert changed_lines("    if a:\n        b()\n", "    if a:\n    b()\n") == ("    b()", "b()")


def test_positions_count_characters_where_python_counts_bytes() -> None:
    source = SourceFile("a.py", "x = 'äöü', 1\n")
    number = next(node for node in source.nodes() if isinstance(node, ast.Constant) and node.value == 1)
    assert source.segment(number) == "1"
