"""The built-in model against seeded one-line bugs, from the first test run to the submitted summary.

Every repair is judged twice: by the package's own tests, which the model sees, and by others, which it does not.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from codeagent.providers.repair.provider import RepairProvider
from tests.unit.providers.workspace import Finished, Workspace, drive

FIXTURES = Path(__file__).parents[2] / "fixtures"
UNFIXABLE = {"unwritten_feature", "wrong_algorithm"}
FIXABLE = sorted(path.name for path in (FIXTURES / "bugs").iterdir() if path.is_dir() and path.name not in UNFIXABLE)


def copy_of(fixture: Path, folder: Path) -> Path:
    root = folder / fixture.name
    shutil.copytree(fixture, root, ignore=shutil.ignore_patterns("hidden", "__pycache__"))
    return root


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def pass_in(root: Path, *folders: str) -> bool:
    command = [sys.executable, "-B", "-m", "pytest", "-q", "-p", "no:cacheprovider", *folders]
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, timeout=60, check=False)
    return done.returncode == 0


async def repaired(root: Path, task: str = "Make the tests pass.", **options: object) -> Finished:
    return await drive(RepairProvider(), Workspace(root, **options), task)  # type: ignore[arg-type]


def test_there_are_enough_bugs_to_tell_anything() -> None:
    assert len(FIXABLE) >= 12


@pytest.mark.parametrize("name", FIXABLE)
async def test_a_seeded_bug_is_repaired_for_tests_seen_and_unseen(name: str, tmp_path: Path) -> None:
    fixture = FIXTURES / "bugs" / name
    root = copy_of(fixture, tmp_path)
    before = contents(root)
    workspace = Workspace(root, plugins=False, longest_test_seconds=6.0 if name == "endless_search" else 60.0)

    finished = await drive(RepairProvider(), workspace)

    assert "exit code: 0" not in finished.messages[3].text

    assert finished.summary is not None
    assert finished.summary.startswith("**Repaired.**"), finished.summary
    assert "not a language model" in finished.summary
    after = contents(root)
    changed = {path for path in before | after if before.get(path) != after.get(path)}
    assert all(path.endswith(".py") and not path.startswith("tests/") for path in changed), changed
    assert 1 <= len(changed) <= 2
    assert list(workspace.temporary.iterdir()) == []
    shutil.copytree(fixture / "hidden", root / "hidden")
    assert pass_in(root, "tests", "hidden")


def test_a_sandbox_may_leave_the_search_less_memory_than_it_would_take(tmp_path: Path) -> None:
    program = """
import resource, sys
from codeagent.providers.repair.mend.runner import Limits, Runner
resource.setrlimit(resource.RLIMIT_DATA, (1 << 30, 1 << 30))
print(sorted(facts["outcome"] for facts in Runner(sys.argv[1], "pytest").run(None, Limits(5.0, 30.0)).tests.values()))
"""
    root = copy_of(FIXTURES / "bugs" / "missing_return", tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", program, str(root)],
        cwd=root,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(FIXTURES.parents[1])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "'failed'" in done.stdout


@pytest.mark.parametrize("name", sorted(UNFIXABLE))
async def test_what_no_rule_repairs_is_left_as_it_was_and_said_plainly(name: str, tmp_path: Path) -> None:
    root = copy_of(FIXTURES / "bugs" / name, tmp_path)
    before = contents(root)

    finished = await repaired(root, plugins=False)

    assert finished.summary is not None
    assert finished.summary.startswith("**Not repaired.**")
    assert "CODEAGENT_PROVIDERS_FILE" in finished.summary
    assert "--model openai/" in finished.summary
    assert contents(root) == before


async def test_the_demonstration_repository_is_repaired_in_a_few_turns(tmp_path: Path) -> None:
    root = copy_of(FIXTURES / "demo_repo", tmp_path)
    finished = await repaired(root)
    assert pass_in(root)
    assert len(finished.replies) == 5
    assert [reply.cost_usd for reply in finished.replies] == [0] * 5
    assert all(reply.usage.input_tokens > 0 < reply.usage.output_tokens for reply in finished.replies)


async def test_tests_that_pass_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "test_fine.py").write_text("def test_fine():\n    assert True\n")
    before = contents(tmp_path)
    finished = await repaired(tmp_path)
    assert finished.summary is not None
    assert "All 1 tests pass" in finished.summary
    assert contents(tmp_path) == before


async def test_without_tests_there_is_nothing_to_go_by(tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text("def double(x):\n    return x + x + x\n")
    finished = await repaired(tmp_path)
    assert finished.summary is not None
    assert "No tests were found" in finished.summary


async def test_without_pytest_unittest_does(tmp_path: Path) -> None:
    root = copy_of(FIXTURES / "bugs" / "ranking_unittest", tmp_path)
    finished = await repaired(root, without=("pytest", "_pytest"))
    assert finished.summary is not None
    assert finished.summary.startswith("**Repaired.**"), finished.summary
    assert "unittest discover" in finished.replies[-2].message.tool_calls[0].arguments


async def test_tests_the_task_does_not_name_may_go_on_failing(tmp_path: Path) -> None:
    root = copy_of(FIXTURES / "bugs" / "wrong_logic", tmp_path)
    (root / "tests" / "test_later.py").write_text("def test_of_a_feature_to_come():\n    assert 1 == 2\n")
    finished = await repaired(root, task="test_owners_edit and test_admins_edit fail, please have a look")
    assert finished.summary is not None
    assert finished.summary.startswith("**Repaired.**"), finished.summary
    assert "1 that were not asked for still do" in finished.summary
    assert pass_in(root, "tests/test_policy.py")


async def test_files_with_windows_line_ends_and_other_scripts_keep_them(tmp_path: Path) -> None:
    code = '"""Größen, 数."""\r\n\r\n\r\ndef größer(a, b):\r\n    """Ob a > b."""\r\n    return a < b  # 比较\r\n'
    (tmp_path / "mass.py").write_bytes(code.encode())
    (tmp_path / "test_mass.py").write_text("from mass import größer\n\n\ndef test_it():\n    assert größer(2, 1)\n"
                                           "    assert not größer(1, 2)\n")  # fmt: skip
    await repaired(tmp_path)
    assert (tmp_path / "mass.py").read_bytes() == code.replace("a < b  #", "a > b  #").encode()


async def test_warnings_as_errors_and_options_in_the_projects_settings_do_not_hinder(tmp_path: Path) -> None:
    root = copy_of(FIXTURES / "bugs" / "missing_return", tmp_path)
    (root / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\naddopts = --strict-markers -ra\n"
                                     "asyncio_default_fixture_loop_scope = function\n")  # fmt: skip
    finished = await repaired(root)
    assert finished.summary is not None
    assert finished.summary.startswith("**Repaired.**"), finished.summary
