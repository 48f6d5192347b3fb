"""A verdict comes from a fresh checkout, with the patch, and with what is protected as the source has it."""

from __future__ import annotations

from pathlib import Path

import pytest

from codeagent.messages.values import VerifyPatch
from codeagent.messages.verification import USUALLY_PROTECTED, Verification
from codeagent.sandboxes.workspaces import name_for
from tests.acceptance.checks import archive_of
from tests.integration.sandboxes.test_worker import RUN, TENANT, Told, Worker, base, new_worker, worker

__all__ = ["base", "new_worker", "worker"]

PYTEST = "python3 -m pytest -q -p no:cacheprovider"
FAILING = {
    "shop.py": "def total(): return 1\n",
    "tests/test_shop.py": "import shop\ndef test(): assert shop.total() == 2\n",
}
FORGER = """\
cat > conftest.py <<'PY'
import pytest
@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(item, call):
    call.excinfo = None
def pytest_sessionfinish(session):
    session.exitstatus = 0
PY
"""


ENDS_WELL = "import os\nos._exit(0)\n"
COLLECTS = "[pytest]\naddopts = --collect-only\n"
COLLECTS_TOML = '[pytest]\naddopts = ["--collect-only"]\n'
STEERING = {
    ".pytest.ini": COLLECTS,
    "pytest.ini": COLLECTS,
    "pytest.toml": COLLECTS_TOML,
    ".pytest.toml": COLLECTS_TOML,
    "tox.ini": COLLECTS,
    "setup.cfg": "[tool:pytest]\naddopts = --collect-only\n",
    "pyproject.toml": '[tool.pytest.ini_options]\naddopts = "--collect-only"\n',
    "pytest.py": ENDS_WELL,
    "pytest/__init__.py": ENDS_WELL,
    "_pytest.py": ENDS_WELL,
    "_pytest/__init__.py": ENDS_WELL,
    "sitecustomize.py": ENDS_WELL,
    "sitecustomize/__init__.py": ENDS_WELL,
    "usercustomize.py": ENDS_WELL,
    "x.dist-info/entry_points.txt": "[pytest11]\nforging = forging\n",
    "x.egg-info/entry_points.txt": "[pytest11]\nforging = forging\n",
}
"""What makes a failing test pass as soon as it is there."""

ABOUT = "Name: x\nVersion: 1\n"
BESIDE = {
    "x.dist-info/entry_points.txt": {"x.dist-info/METADATA": ABOUT, "forging.py": ENDS_WELL},
    "x.egg-info/entry_points.txt": {"x.egg-info/PKG-INFO": ABOUT, "forging.py": ENDS_WELL},
}
"""What has to be beside some of it."""


@pytest.fixture
async def failing(worker: Worker) -> str:
    """A repository whose test fails."""
    return await worker.files.put(TENANT, archive_of(FAILING))


async def judged(worker: Worker, base: str, checkpoint: str, command: str = PYTEST, **fields: object) -> Told:
    asked = Verification(command=command, **{"timeout_seconds": 20, **fields})
    return await worker.do(VerifyPatch(verification=asked), base, checkpoint)


async def test_a_repair_passes(worker: Worker, failing: str) -> None:
    repaired = await worker.shell("sed -i s/1/2/ shop.py", failing)
    told = await judged(worker, failing, repaired.answer.checkpoint)
    assert (told.answer.reason, told.answer.exit_code, told.answer.restored) == ("ok", 0, ())
    assert told.answer.checkpoint == repaired.answer.checkpoint
    assert (told.began.operation, told.began.argv) == ("verify", ("/bin/bash", "-c", PYTEST))
    assert told.ended.stdout is not None
    assert "1 passed" in told.ended.stdout.excerpt
    assert told.answer.used is not None


@pytest.mark.parametrize(
    ("protected", "reason", "restored"),
    [(USUALLY_PROTECTED, "exit", ("conftest.py",)), ((), "ok", ())],
    ids=["protected", "as a control"],
)
async def test_a_conftest_that_forges_a_pass_is_caught(
    worker: Worker, failing: str, protected: tuple[str, ...], reason: str, restored: tuple[str, ...]
) -> None:
    forged = await worker.shell(FORGER + PYTEST, failing)
    assert forged.answer.reason == "ok", "the run itself believes it"
    told = await judged(worker, failing, forged.answer.checkpoint, protected=protected)
    assert (told.answer.reason, told.answer.restored) == (reason, restored)
    assert told.answer.checkpoint == forged.answer.checkpoint, "the patch stays what it is"
    assert told.began.checkpoint == ("" if restored else forged.answer.checkpoint), "and the log names what was judged"


@pytest.mark.parametrize("name", STEERING)
async def test_no_file_that_steers_a_run_of_tests_makes_it_pass(worker: Worker, failing: str, name: str) -> None:
    folder, beside = name.rpartition("/")[0] or ".", BESIDE.get(name, {})
    files = {name: STEERING[name], **beside}
    written = [f"cat > {path} <<'END'\n{text}END" for path, text in files.items()]
    forged = await worker.shell("\n".join((f"mkdir -p {folder}", *written)), failing)
    # What customizes a site is found where the command itself says that modules lie here.
    command = f"PYTHONPATH=. {PYTEST}" if "customize" in name else PYTEST
    told = await judged(worker, failing, forged.answer.checkpoint, command)
    assert (told.answer.reason, told.answer.exit_code) == ("exit", 1)
    assert name in (told.answer.restored or ())
    control = await judged(worker, failing, forged.answer.checkpoint, command, protected=())
    assert control.answer.reason == "ok", "unprotected it does"


async def test_a_patch_may_change_protected_files_and_is_judged_without_that(worker: Worker, failing: str) -> None:
    repaired = await worker.shell("sed -i s/1/2/ shop.py; echo '[project]' > pyproject.toml", failing)
    told = await judged(worker, failing, repaired.answer.checkpoint)
    assert (told.answer.reason, told.answer.restored) == ("ok", ("pyproject.toml",))
    assert told.answer.checkpoint == repaired.answer.checkpoint


async def test_tests_that_the_patch_weakens_or_removes_are_those_of_the_source(worker: Worker, failing: str) -> None:
    weakened = await worker.shell("echo 'def test(): pass' > tests/test_shop.py; echo > tests/more.py", failing)
    removed = await worker.shell("rm -r tests; mkdir tests; echo 'def test(): pass' > tests/test_x.py", failing)
    for tampered in (weakened, removed):
        told = await judged(worker, failing, tampered.answer.checkpoint, protected=("tests/",))
        assert (told.answer.reason, told.answer.exit_code) == ("exit", 1)
        assert told.answer.restored is not None
        assert "tests/test_shop.py" in told.answer.restored


async def test_what_lies_beside_the_patch_in_the_runs_workspace_is_not_there(worker: Worker, base: str) -> None:
    """Ignored files, processes, and the home directory stay behind."""
    left = await worker.shell("echo x > kept.log; echo x > ~/kept; echo x > /tmp/kept; (sleep 60 &) ; true", base)
    assert left.answer.checkpoint == ""
    told = await judged(worker, base, left.answer.checkpoint, "test ! -e kept.log -a ! -e ~/kept -a ! -e /tmp/kept")
    assert told.answer.reason == "ok"


async def test_nothing_that_the_command_leaves_is_kept(worker: Worker, base: str, state_dir: Path) -> None:
    told = await judged(worker, base, "", "echo x > left; exit 3")
    assert (told.answer.exit_code, told.answer.checkpoint) == (3, "")
    again = await judged(worker, base, "", "test ! -e left")
    assert again.answer.reason == "ok"
    assert not (state_dir / "workspaces" / name_for(RUN)).exists()


async def test_a_command_that_does_not_end_is_ended(worker: Worker, base: str) -> None:
    told = await judged(worker, base, "", "sleep 60", timeout_seconds=1)
    assert (told.answer.reason, told.answer.exit_code) == ("timeout", None)
