"""What to do next, decided from what has been done: run the tests, search, edit, run them again, submit."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from codeagent.providers.repair import bundle, findings, summary
from codeagent.providers.repair.findings import Findings
from codeagent.providers.repair.transcript import Answer, Progress, Step

INTERPRETERS = ("python", "python3")
TEST_SECONDS = 60
VERIFY_SECONDS = 110
SEARCH_SECONDS = 118
# What the script gives itself, on the first search and on a second one after the first was cut off.
BUDGETS = (95, 30)
_MOST_FOCUS = 20


@dataclass(frozen=True, slots=True)
class Call:
    tool: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Move:
    """A turn: one line for people, and the calls. No calls ends the conversation."""

    phase: str
    text: str
    calls: tuple[Call, ...] = ()


def next_move(progress: Progress) -> Move:
    """The move after the last step. The same conversation always gets the same move."""
    if not progress.steps:
        return run_tests(INTERPRETERS[0])
    step = progress.steps[-1]
    following = {
        "tests": after_tests,
        "search": after_search,
        "edit": after_edit,
        "verify": after_verify,
        "undo": after_undo,
    }.get(step.phase)
    return following(progress, step) if following else Move("end", "The work has been submitted already.")


def run_tests(interpreter: str) -> Move:
    return Move("tests", "Running the tests.", (_shell(_pytest(interpreter), TEST_SECONDS),))


def after_tests(progress: Progress, step: Step) -> Move:
    answer = step.answers[0]
    if answer.exit_code == 0:
        return _submit("The tests pass: there is nothing to repair.", summary.passing(_passed(answer.text)))
    if _cannot_run(answer) and progress.count("tests") < len(INTERPRETERS):
        return run_tests(INTERPRETERS[progress.count("tests")])
    return _search(progress, _what_happened(answer))


def after_search(progress: Progress, step: Step) -> Move:
    found = findings.parse(step.answers[0].text)
    if found is None:
        if progress.count("search") < len(BUDGETS):
            return _search(progress, "The search was cut off. Trying once more, with less time.")
        return _submit("The search could not be carried out.", summary.gave_up("The search for an edit did not end."))
    if found.status == "passing":
        return _submit("The tests pass: there is nothing to repair.", summary.passing(found.passing_count))
    if found.status == "no_tests":
        return _submit("There are no tests to go by.", summary.no_tests())
    if found.status == "unfinished":
        return _submit("The tests take too long.", summary.gave_up("No test failed in the time these rules have."))
    if found.status == "crashed":
        return _submit("The search failed.", summary.gave_up(f"The search itself failed: {found.reason}."))
    if found.status != "repaired" or not found.edits:
        return _submit("No rule repairs this.", summary.not_found(found))
    calls = tuple(Call("edit_file", {"path": item.path, "old": item.old, "new": item.new}) for item in found.edits)
    places = ", ".join(f"{item.path}:{item.line}" for item in found.changes)
    return Move("edit", f"Found a repair after {found.tried} edits. Editing {places}.", calls)


def after_edit(progress: Progress, step: Step) -> Move:
    if any(answer.is_error for answer in step.answers):
        return _undo(step, "An edit did not fit the file as it is now.")
    found = _findings(progress)
    interpreter = _interpreter(progress)
    command = _pytest(interpreter, found) if found.runner == "pytest" else _unittest(interpreter, found)
    return Move("verify", "Running all tests again.", (_shell(command, VERIFY_SECONDS),))


def after_verify(progress: Progress, step: Step) -> Move:
    found, answer = _findings(progress), step.answers[0]
    expected = found.untouched > 0 and 0 < _failed(answer.text) <= found.untouched
    if answer.exit_code == 0 or expected:
        return _submit("The repair holds. Submitting it.", summary.repaired(found))
    edits = progress.last("edit")
    return _undo(edits, "The tests do not pass with the edit after all.") if edits else after_undo(progress, step)


def after_undo(progress: Progress, step: Step) -> Move:
    why = "An edit that passed in the search did not pass in the repository."
    if any(answer.is_error for answer in step.answers):
        why += " Taking it back failed too: look at the patch before you use it."
    return _submit("Giving up.", summary.gave_up(why))


def _search(progress: Progress, text: str) -> Move:
    config = {
        "focus": re.findall(r"\btest_\w+", progress.task)[:_MOST_FOCUS],
        "files": [path.lstrip("./") for path in re.findall(r"[\w./-]+\.py\b", progress.task)][:_MOST_FOCUS],
        "budget_seconds": BUDGETS[progress.count("search")],
    }
    command = bundle.command(_interpreter(progress), config)
    return Move("search", f"{text} Looking for an edit that repairs it.", (_shell(command, SEARCH_SECONDS),))


def _undo(step: Step, why: str) -> Move:
    """Takes back the edits that were made, the last one first."""
    calls = []
    for answer in reversed(step.answers):
        arguments = json.loads(answer.call.arguments)
        if not answer.is_error:
            calls.append(Call("edit_file", {**arguments, "old": arguments["new"], "new": arguments["old"]}))
    if not calls:
        return _submit("Giving up.", summary.gave_up(why))
    return Move("undo", f"{why} Taking it back.", tuple(calls))


def _submit(text: str, told: str) -> Move:
    return Move("submit", text, (Call("submit", {"summary": told}),))


def _shell(command: str, seconds: int) -> Call:
    return Call("shell", {"command": command, "timeout_seconds": seconds})


def _pytest(interpreter: str, found: Findings | None = None) -> str:
    paths = _paths(found) if found is not None else ""
    options = "".join(f" {_quoted(item)}" for item in found.options) if found is not None else ""
    return f"{paths}{interpreter} -B -m pytest -q --tb=short -p no:cacheprovider{options}"


def _unittest(interpreter: str, found: Findings) -> str:
    options = "".join(f" {_quoted(item)}" for item in found.options)
    return f"{_paths(found)}{interpreter} -B -m unittest discover -p '*test*.py'{options}"


def _paths(found: Findings) -> str:
    return f"PYTHONPATH={_quoted(':'.join(found.paths))} " if found.paths else ""


def _quoted(text: str) -> str:
    return text if re.fullmatch(r"[\w./=:-]+", text) else "'" + text.replace("'", "") + "'"


def _interpreter(progress: Progress) -> str:
    """The first interpreter that exists and has pytest; without pytest, the first that exists."""
    tried = [step.answers[0] for step in progress.steps if step.phase == "tests"]
    for interpreter, answer in zip(INTERPRETERS, tried, strict=False):
        if not _cannot_run(answer):
            return interpreter
    for interpreter, answer in zip(INTERPRETERS, tried, strict=False):
        if answer.exit_code != 127:
            return interpreter
    return INTERPRETERS[-1]


def _cannot_run(answer: Answer) -> bool:
    return answer.exit_code == 127 or "No module named pytest" in answer.text


def _findings(progress: Progress) -> Findings:
    step = progress.last("search")
    found = findings.parse(step.answers[0].text) if step is not None else None
    return found or Findings(status="crashed")


def _what_happened(answer: Answer) -> str:
    if answer.exit_code is None:
        return "The tests did not come to an end."
    failed = _failed(answer.text)
    return f"{failed} {'test fails' if failed == 1 else 'tests fail'}." if failed else "The tests do not run."


def _failed(text: str) -> int:
    """Failures and errors in the last line of pytest or unittest."""
    counts = re.findall(r"(\d+) (?:failed|errors?)\b", text.rsplit("short test summary", 1)[-1])
    counts += re.findall(r"(?:failures|errors)=(\d+)", text)
    return sum(map(int, counts[-2:]))


def _passed(text: str) -> int | None:
    found = re.findall(r"(\d+) passed", text)
    return int(found[-1]) if found else None
