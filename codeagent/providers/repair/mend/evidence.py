"""Where the fault may lie: which lines failing tests run and passing ones do not, and what the errors say."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Iterable
from typing import Any

from codeagent.providers.repair.mend.project import Project
from codeagent.providers.repair.mend.source import SourceFile

# An error makes some kinds of edit more likely than they are on the whole.
KIND_BOOSTS: dict[str, dict[str, float]] = {
    "NameError": {"import": 1.7, "name": 1.5, "self": 1.3},
    "UnboundLocalError": {"scope": 1.7, "name": 1.2, "indentation": 1.2},
    "AttributeError": {"attribute": 1.6, "constructor": 1.5, "return": 1.3, "call": 1.3, "assignment": 1.2,
                       "name": 1.2},
    "TypeError": {"self": 1.7, "call": 1.4, "superfluous call": 1.3, "argument order": 1.2, "decorator": 1.3,
                  "return": 1.3, "guard": 1.5, "unpacking": 1.3, "lookup": 1.3},
    "IndexError": {"off by one": 1.6, "range": 1.5, "slice": 1.3, "comparison": 1.3, "constant": 1.2, "guard": 1.8},
    "KeyError": {"lookup": 1.9, "text": 1.6, "exception": 1.4, "name": 1.2, "order": 1.2},
    "ZeroDivisionError": {"guard": 2.5, "operand order": 1.4, "comparison": 1.3},
    "ValueError": {"guard": 1.6, "exception": 1.3, "loop": 1.3, "text": 1.2},
    "RecursionError": {"comparison": 1.4, "guard": 1.8, "constant": 1.3, "off by one": 1.3},
    "TestTimeout": {"off by one": 1.8, "assignment": 1.4, "indentation": 1.4, "comparison": 1.3, "constant": 1.2,
                    "statement order": 1.2},
    "ImportError": {"import": 2.0},
    "ModuleNotFoundError": {"import": 2.0},
    "FrozenInstanceError": {"decorator": 1.5},
}  # fmt: skip
OFF_BY_ONE = frozenset({"comparison", "off by one", "range", "constant", "slice", "superfluous term"})


class Evidence:
    """Suspicion of every line between 0 and about 1.5, and of kinds of edit as a factor."""

    def __init__(self, project: Project, failing: list[dict[str, Any]], passing: list[dict[str, Any]]) -> None:
        self.project = project
        self.suspicion: dict[tuple[str, int], float] = {}
        self.boosts: dict[str, float] = {}
        self.unknown_names: set[str] = set()
        self.raised: set[str] = set()
        self.named: set[str] = set()
        self.missing_attributes: set[str] = set()
        self._spectrum(failing, passing)
        for facts in failing:
            self._read_error(facts["error"], facts["message"])
            self._read_frames(facts["frames"], 1.0 if facts["outcome"] == "error" else 0.35)
        self._spread_to_definitions()

    def of(self, source: SourceFile, node: ast.AST) -> float:
        """Suspicion of an expression or statement: of its statement's own lines, not of the block under it."""
        first, last = own_lines(source, node)
        return max((self.suspicion.get((source.path, line), 0.0) for line in range(first, last + 1)), default=0.0)

    def within(self, source: SourceFile, node: ast.AST) -> float:
        """The highest suspicion anywhere in a definition."""
        lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)  # type: ignore[attr-defined]
        named = 1.0 if getattr(node, "name", "") in self.named else 0.0
        return max(named, 0.9 * max((self.suspicion.get((source.path, line), 0.0) for line in lines), default=0.0))

    def boost(self, kind: str) -> float:
        return self.boosts.get(kind, 1.0)

    def favour(self, words: Iterable[str]) -> None:
        """Files the task names are looked at first."""
        for word in words:
            for path, line in list(self.suspicion):
                if path.endswith(word):
                    self.suspicion[(path, line)] *= 1.3

    def top_lines(self, count: int) -> list[tuple[str, int]]:
        ranked = sorted(self.suspicion, key=lambda place: (-self.suspicion[place], place))
        return [place for place in ranked if place[0] in self.project.files][:count]

    def _spectrum(self, failing: list[dict[str, Any]], passing: list[dict[str, Any]]) -> None:
        """Ochiai: the share of failing tests among those that run a line, weighed by how many of them do."""
        bad, good = _counts(failing), _counts(passing)
        total = sum(1 for facts in failing if facts.get("lines"))
        for place, times in bad.items():
            if place[0] in self.project.files:
                self.suspicion[place] = times / math.sqrt(total * (times + good.get(place, 0)))

    def _read_frames(self, frames: list[list[Any]], weight: float) -> None:
        own = [(path, line) for path, line, _ in frames if path in self.project.files]
        for place in own:
            self.suspicion[place] = self.suspicion.get(place, 0.0) + weight * 0.25
        if own:
            self.suspicion[own[-1]] += weight * 0.75

    def _read_error(self, error: str, message: str) -> None:
        self.raised.add(error)
        for kind, factor in KIND_BOOSTS.get(error, {}).items():
            self.boosts[kind] = max(self.boosts.get(kind, 1.0), factor)
        self.unknown_names.update(re.findall(r"name '(\w+)' is not defined", message))
        self.unknown_names.update(re.findall(r"cannot import name '(\w+)'", message))
        self.named.update(re.findall(r"(\w+)\(\) (?:takes|missing|got)", message))
        self.named.update(re.findall(r"'(\w+)' (?:object )?has no attribute", message))
        self.missing_attributes.update(re.findall(r"has no attribute '(\w+)'", message))
        if re.search(r"assert None ==|None !=|'NoneType' object", message):
            self.boosts["return"] = max(self.boosts.get("return", 1.0), 1.5)
        numbers = re.search(r"(?:assert )?(-?\d+(?:\.\d+)?) (?:==|!=) (-?\d+(?:\.\d+)?)\b", message)
        if numbers:
            self._compare(float(numbers.group(1)), float(numbers.group(2)))

    def _compare(self, one: float, other: float) -> None:
        """A result that is one off, or ten times too large, says what kind of edit to look for."""
        if abs(one - other) == 1:
            for kind in OFF_BY_ONE:
                self.boosts[kind] = max(self.boosts.get(kind, 1.0), 1.2)
        low, high = sorted((abs(one), abs(other)))
        if low and round(high / low, 9) in {10.0, 100.0, 1000.0, 60.0, 3600.0}:
            self.boosts["constant"] = max(self.boosts.get("constant", 1.0), 1.8)

    def _spread_to_definitions(self) -> None:
        """Constants, defaults and class variables run at import, before any test: they take after their users."""
        used: dict[str, float] = {}
        for source in self.project.files.values():
            for node in source.nodes():
                name = getattr(node, "id", getattr(node, "attr", None))
                if isinstance(node, (ast.Name, ast.Attribute)) and isinstance(name, str):
                    used[name] = max(used.get(name, 0.0), self.of(source, node))
        for path, source in self.project.files.items():
            tops = [source.tree, *(node for node in source.nodes() if isinstance(node, ast.ClassDef))]
            for top in tops:
                for statement in getattr(top, "body", ()):
                    self._spread_to(source, path, statement, used)

    def _spread_to(self, source: SourceFile, path: str, statement: ast.stmt, used: dict[str, float]) -> None:
        if isinstance(statement, (ast.Assign, ast.AnnAssign)):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            names = [getattr(node, "id", "") for target in targets for node in ast.walk(target)]
            level = 0.8 * max((used.get(name, 0.0) for name in names), default=0.0)
            for line in range(statement.lineno, (statement.end_lineno or statement.lineno) + 1):
                self._raise_to((path, line), level)
        elif isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
            inside = range(statement.body[0].lineno, (statement.end_lineno or statement.lineno) + 1)
            level = 0.8 * max((self.suspicion.get((path, line), 0.0) for line in inside), default=0.0)
            for line in range(statement.lineno, statement.body[0].lineno):
                self._raise_to((path, line), level)
        elif isinstance(statement, (ast.ImportFrom, ast.Import)):
            names = [alias.asname or alias.name for alias in statement.names]
            self._raise_to((path, statement.lineno), 0.6 * max((used.get(name, 0.0) for name in names), default=0.0))

    def _raise_to(self, place: tuple[str, int], level: float) -> None:
        if level > self.suspicion.get(place, 0.0):
            self.suspicion[place] = level


def own_lines(source: SourceFile, node: ast.AST) -> tuple[int, int]:
    """First and last line of the statement a node belongs to; of a compound one, only its head."""
    if isinstance(node, ast.ExceptHandler):
        return node.lineno, node.lineno
    statement = source.statement_of(node)
    body = getattr(statement, "body", None)
    last = statement.end_lineno or statement.lineno
    return statement.lineno, max(statement.lineno, body[0].lineno - 1) if body else last


def _counts(tests: list[dict[str, Any]]) -> dict[tuple[str, int], int]:
    counted: dict[tuple[str, int], int] = {}
    for facts in tests:
        for path, lines in facts.get("lines", {}).items():
            for line in lines:
                counted[(path, line)] = counted.get((path, line), 0) + 1
    return counted
