"""Server programs that cannot outlive the process that started them."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from codeagent.embedded.accounts import Account
from codeagent.embedded.spawning import Program, run_tool, wait_until
from codeagent.errors import CodeAgentError, Rejected, Unavailable
from tests.integration.embedded.harness import Script, all_gone, is_running

OWNER = """
    from pathlib import Path
    import os, signal, time
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a script's `&` has it ignored, and so would the program
    from codeagent.embedded.accounts import Account
    from codeagent.embedded.spawning import Program
    account = Account(60917, 60917) if os.geteuid() == 0 else None
    options = {"account": account, "log_path": Path(sys.argv[1]) / "log", "death_signal": signal.SIGINT}
    program = Program(["/bin/sleep", "600"], **options, use_guard=sys.argv[2] == "guarded")
    report(program.pid)
    time.sleep(600)
"""


@pytest.mark.parametrize("way", ["asked-of-the-kernel", "guarded"])
def test_a_program_ends_when_its_parent_is_killed_even_under_another_account(state_dir: Path, way: str) -> None:
    with Script(OWNER, state_dir, way) as script:
        pid = script.next_report()
        time.sleep(0.2)
        assert is_running(pid)
        script.process.kill()
        assert all_gone([pid], within_seconds=4)


def test_the_guard_leaves_with_the_program_it_guards(state_dir: Path) -> None:
    program = Program(
        ["/bin/sh", "-c", "sleep 0.1"],
        account=None,
        log_path=state_dir / "log",
        death_signal=signal.SIGINT,
        use_guard=True,
    )
    guard = program._guard
    assert guard is not None
    assert program.wait(5)
    assert not is_running(guard.pid)
    assert program.exit_status == 0


def test_a_program_has_a_clean_environment_no_terminal_and_its_output_in_the_log(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CODEAGENT_SECRET", "classified")
    program = Program(
        ["/bin/sh", "-c", "env; pwd; cat; ps -o sid= -p $$; echo $$ >&2"],
        account=None,
        log_path=state_dir / "log",
        death_signal=signal.SIGKILL,
    )
    assert program.wait(5)
    output = (state_dir / "log").read_text()
    assert "classified" not in output
    words = output.split()
    assert words[-2] == words[-1] == str(program.pid)


def test_the_log_is_continued_not_overwritten(state_dir: Path) -> None:
    for word in ("first", "second"):
        program = Program(["/bin/echo", word], account=None, log_path=state_dir / "log", death_signal=signal.SIGKILL)
        assert program.wait(5)
    assert (state_dir / "log").read_text().split() == ["first", "second"]


def test_a_tool_gives_its_output_and_a_failing_one_its_reason() -> None:
    assert run_tool(["/bin/cat"], None, stdin="hello") == "hello"
    with pytest.raises(Unavailable, match="status 3: FATAL: no luck"):
        run_tool(["/bin/sh", "-c", "echo one; echo 'FATAL: no luck'; echo two; exit 3"], None)


def test_a_tool_that_hangs_is_killed() -> None:
    began = time.monotonic()
    with pytest.raises(Exception, match="timed out"):
        run_tool(["/bin/sleep", "60"], None, timeout_seconds=0.2)
    assert time.monotonic() - began < 3


def test_a_program_that_is_not_there_is_a_clear_error(state_dir: Path) -> None:
    with pytest.raises(CodeAgentError, match="No such file") as refusal:
        run_tool([str(state_dir / "nothing")], None)
    assert refusal.value.code == "cannot_run_server"


@pytest.mark.skipif(os.geteuid() != 0, reason="about what root does")
def test_a_program_that_the_account_may_not_run_is_a_clear_error(state_dir: Path) -> None:
    program = state_dir / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o700)
    with pytest.raises(Rejected, match="user id 60917"):
        run_tool([str(program)], Account(60917, 60917))


def test_waiting_ends_with_the_condition_the_time_or_the_wish_to_give_up() -> None:
    assert wait_until(lambda: True, 0)
    assert not wait_until(lambda: False, 0.05)
    assert not wait_until(lambda: False, 60, abort=lambda: True)
