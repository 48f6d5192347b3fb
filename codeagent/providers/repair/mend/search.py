"""The search: find the failing tests, suspect lines, try edits in order, and say what makes every test pass."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import importlib.util
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from codeagent.providers.repair.mend.candidates import ranked
from codeagent.providers.repair.mend.evidence import Evidence
from codeagent.providers.repair.mend.project import Project
from codeagent.providers.repair.mend.runner import Limits, Report, Runner
from codeagent.providers.repair.mend.snippets import changed_lines, edits_between
from codeagent.providers.repair.mend.source import Candidate, SourceFile

MARKER = "CODEAGENT-REPAIR-RESULT "
ROUNDS = 3
MOST_ALTERNATIVES = 5
MOST_TARGETS = 8
MOST_PASSING_TRACED = 60
TEST_FILE_PATTERNS = "python_files=test*.py *_test.py *_tests.py check_*.py"


@dataclass
class Suite:
    """A way to run the tests that works here, and what it showed before any edit."""

    runner: Runner
    report: Report

    @property
    def failing(self) -> list[str]:
        return self.report.ids("failed", "error")


@dataclass
class Found:
    """An edit that works: the text it was made in and the one it makes."""

    score: float
    candidate: Candidate
    before: str
    text: str


@dataclass
class Search:
    """One search and its time. `overlay` holds the files as edited by the rounds before."""

    suite: Suite
    project: Project
    deadline: float
    files: list[str]
    overlay: dict[str, str] = field(default_factory=dict)
    tried: int = 0
    started: float = field(default_factory=time.monotonic)

    def time_left(self) -> float:
        return self.deadline - time.monotonic()

    def evidence(self, failing: list[str]) -> Evidence:
        """Runs failing and some passing tests again, watching lines."""
        tests = self.suite.report.tests
        quick = sorted(self.suite.report.ids("passed"), key=lambda name: float(tests[name]["seconds"]))
        limits = Limits(4.0, min(40.0, max(5.0, self.time_left() / 3)))
        endless = any(tests.get(name, {}).get("error") == "TestTimeout" for name in failing)
        brief = Limits(1.0, limits.total_seconds) if endless else limits
        watched = self.suite.runner.run(failing[:40], brief, self.overlay, traced=True)
        for name in failing:
            watched.tests.setdefault(name, tests.get(name, _nothing(name)))
        others = self.suite.runner.run(quick[:MOST_PASSING_TRACED], limits, self.overlay, traced=True)
        evidence = Evidence(
            self.project,
            [facts for facts in watched.tests.values() if facts["outcome"] in {"failed", "error"}],
            [facts for facts in others.tests.values() if facts["outcome"] == "passed"],
        )
        evidence.favour(self.files)
        return evidence

    def limits(self, count: int) -> Limits:
        """Per test a few times what the slowest healthy one took: an endless loop is given up soon."""
        tests = self.suite.report.tests
        slowest = max((float(tests[name]["seconds"]) for name in self.suite.report.ids("passed")), default=0.1)
        each = min(10.0, max(0.8, 5.0 * slowest))
        whole = 5.0 + each + 0.1 * count + 3.0 * self.suite.report.seconds
        return Limits(each, max(1.0, min(60.0, whole, self.time_left() + 3.0)))

    def round(self, failing: list[str]) -> tuple[list[Found], Found | None]:
        """Edits that make all of `failing` pass and break nothing, or else the one that brings it furthest."""
        began = time.monotonic()
        evidence = self.evidence(failing)
        found: list[Found] = []
        best: Found | None = None
        most, stop_at, seen = 0, self.deadline, set(self.overlay.values())
        targets = failing[:MOST_TARGETS]
        alone = len(targets) == 1 and self.suite.report.tests.get(targets[0], {}).get("outcome") != "error"
        for score, candidate in ranked(self.project, evidence):
            if time.monotonic() > stop_at or len(found) > MOST_ALTERNATIVES or (found and score < 0.4 * found[0].score):
                break
            before = self.project.files[candidate.path].text
            text = candidate.apply(before)
            if text in seen or not _compiles(text):
                continue
            seen.add(text)
            overlay = {**self.overlay, candidate.path: text}
            self.tried += 1
            report = self.suite.runner.run(targets, self.limits(len(targets)), overlay, stop_at_first=alone)
            progress = _progress(report, targets)
            if progress == len(targets) and self._nothing_broken(overlay, failing):
                found.append(Found(score, candidate, before, text))
                if len(found) == 1:
                    now = time.monotonic()
                    stop_at = min(self.deadline, now + max(1.5, 0.3 * (now - self.started)))
            elif most < progress < len(targets) and not found and self._nothing_broken(overlay, []):
                if best is None:
                    now = time.monotonic()
                    stop_at = min(self.deadline, now + max(5.0, now - began))
                best, most = Found(score, candidate, before, text), progress
        return found, best

    def _nothing_broken(self, overlay: dict[str, str], failing: list[str]) -> bool:
        """Whether the whole suite, with the edit, passes what passed before, and `failing` too."""
        report = self.suite.runner.run(None, self.limits(len(self.suite.report.tests)), overlay)
        wanted = self.suite.report.ids("passed")
        whole = report.finished and all(report.tests.get(name, {}).get("outcome") == "passed" for name in wanted)
        return whole and _progress(report, failing) == len(failing)

    def adopt(self, found: Found) -> None:
        self.overlay[found.candidate.path] = found.text
        self.project.files[found.candidate.path] = SourceFile(found.candidate.path, found.text)


def _progress(report: Report, targets: list[str]) -> int:
    """How many of the targets pass. A file that could not be collected passes when all the tests in it do."""
    if not report.finished:
        return 0
    passed = 0
    for name in targets:
        inside = [facts for key, facts in report.tests.items() if key == name or key.startswith(name + "::")]
        passed += bool(inside) and all(facts["outcome"] in {"passed", "skipped"} for facts in inside)
    return passed


def suites(root: str, seconds: float) -> Iterator[Suite]:
    """Ways to run the tests, the usual one first. `seconds` bounds each try."""
    has_pytest = importlib.util.find_spec("pytest") is not None
    sources = ["src"] if Path(root, "src").is_dir() else []
    if has_pytest:
        preload_pytest()
        for options in ((), ("-o", "addopts="), ("-o", "addopts=", "-o", TEST_FILE_PATTERNS)):
            for paths in ((), sources) if sources else ((),):
                yield _tried(Runner(root, "pytest", options, paths), seconds)
    apart = Path(root, "tests").is_dir() and not Path(root, "tests", "__init__.py").exists()
    yield _tried(Runner(root, "unittest", ("-s", "tests", "-t", "tests") if apart else (), sources), seconds)


def preload_pytest() -> None:
    """Loads pytest and its plugins once, here, so that no forked child has to; nothing of the project is loaded."""
    import _pytest.config  # noqa: PLC0415

    for name in _pytest.config.default_plugins:
        importlib.import_module(f"_pytest.{name}")
    for plugin in importlib.metadata.entry_points().get("pytest11", ()) if sys.version_info < (3, 10) else (
        importlib.metadata.entry_points(group="pytest11")
    ):  # fmt: skip
        try:
            plugin.load()
        except Exception:  # noqa: S112  # pytest itself will say so, in the child
            continue


def _tried(runner: Runner, seconds: float) -> Suite:
    return Suite(runner, runner.run(None, Limits(10.0, seconds)))


def working_suite(root: str, seconds: float) -> Suite | None:
    """The first way in which tests really run; else the one that at least shows why they do not."""
    second: Suite | None = None
    for suite in suites(root, seconds):
        outcomes = [facts["outcome"] for facts in suite.report.tests.values()]
        if outcomes and not all(outcome == "error" for outcome in outcomes):
            missing = any(facts["error"] == "ModuleNotFoundError" for facts in suite.report.tests.values())
            if not (missing and Path(root, "src").is_dir() and not suite.runner.paths):
                return suite
        if outcomes and (second is None or len(outcomes) > len(second.report.tests)):
            second = suite
    return second


def main(config: dict[str, Any]) -> None:
    """Prints one line: MARKER and a JSON document. `config`: focus (test names), files, budget_seconds."""
    started = time.monotonic()
    try:
        result = repair(str(Path.cwd()), config, started + float(config["budget_seconds"]))
    except Exception as error:
        result = {"status": "crashed", "reason": f"{type(error).__name__}: {error}"[:500]}
    result["seconds"] = round(time.monotonic() - started, 1)
    sys.stdout.write(MARKER + json.dumps(result) + "\n")


def repair(root: str, config: dict[str, Any], deadline: float) -> dict[str, Any]:
    suite = working_suite(root, 0.5 * float(config["budget_seconds"]))
    if suite is None:
        return {"status": "no_tests"}
    failing = suite.failing
    result: dict[str, Any] = {
        "runner": suite.runner.kind,
        "options": list(suite.runner.options),
        "paths": list(suite.runner.paths),
        "failing": failing[:20],
        "failing_count": len(failing),
        "passing_count": len(suite.report.ids("passed")),
    }
    if not failing:
        return {**result, "status": "passing" if suite.report.finished else "unfinished"}
    wanted = [name for name in failing if any(word in name for word in config["focus"])] or failing
    search = Search(suite, Project(root), deadline, list(config["files"]))
    originals = {path: source.text for path, source in search.project.files.items()}
    solution, alternatives, open_tests = _rounds(search, wanted)
    result.update(tried=search.tried, unsolved=open_tests[:20], untouched=len(failing) - len(wanted))
    result["status"] = "repaired" if solution and not open_tests else "not_found"
    result["edits"] = edits_between(originals, search.overlay) if not open_tests else []
    result["changes"] = [_described(item) for item in solution]
    result["alternatives"] = [_described(item) for item in alternatives]
    result["suspects"] = _suspects(search, wanted) if open_tests else []
    return result


def _rounds(search: Search, wanted: list[str]) -> tuple[list[Found], list[Found], list[str]]:
    """Several faults are repaired one after the other: the edits, other edits for the last, what still fails."""
    solution: list[Found] = []
    open_tests = wanted
    for _ in range(ROUNDS):
        found, best = search.round(open_tests)
        if found:
            search.adopt(found[0])
            return [*solution, found[0]], found[1:], []
        if best is None or search.time_left() < 1:
            break
        search.adopt(best)
        solution.append(best)
        report = search.suite.runner.run(None, search.limits(len(search.suite.report.tests)), search.overlay)
        open_tests = [name for name in report.ids("failed", "error") if _belongs(name, open_tests)]
        search.suite.report = report
        if not open_tests:
            return solution, [], []
    return solution, [], open_tests


def _belongs(name: str, tests: list[str]) -> bool:
    return any(name == test or name.startswith(test + "::") for test in tests)


def _described(found: Found) -> dict[str, Any]:
    before, after = changed_lines(found.before, found.text)
    return {"path": found.candidate.path, "line": found.candidate.line, "kind": found.candidate.kind,
            "before": before, "after": after}  # fmt: skip


def _suspects(search: Search, failing: list[str]) -> list[dict[str, Any]]:
    suspects = []
    for path, line in search.evidence(failing).top_lines(5):
        lines = search.project.files[path].lines
        suspects.append(
            {"path": path, "line": line, "text": lines[line - 1].strip()[:200] if line <= len(lines) else ""}
        )
    return suspects


def _compiles(text: str) -> bool:
    try:
        ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def _nothing(name: str) -> dict[str, Any]:
    return {"id": name, "outcome": "failed", "error": "", "message": "", "frames": [], "seconds": 0.0}
