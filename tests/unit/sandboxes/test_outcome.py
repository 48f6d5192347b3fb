"""How the end of a command is told: one reason, the first that applies, and every limit that was hit."""

from __future__ import annotations

from dataclasses import replace

import pytest

from codeagent.sandboxes.outcome import Observed, last_words, limits_hit, reason_for, record
from codeagent.sandboxes.protocol import IsolationLevel, Reason

FINE = Observed(
    stopped=None, exit_code=0, oom_kills=0, pids_refused=0, disk_full=False, inodes_used_up=False, cpu_time_used_up=False,
    stdout=b"", stderr=b"", stdout_seen_bytes=0, stderr_seen_bytes=0, wall_seconds=0.1, cpu_seconds=0.1, peak_memory_bytes=1,
)  # fmt: skip


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({}, Reason.OK),
        ({"exit_code": 1}, Reason.EXIT),
        ({"exit_code": 255}, Reason.EXIT),
        ({"exit_code": 128}, Reason.EXIT),
        ({"exit_code": 137}, Reason.KILLED),
        ({"exit_code": 159}, Reason.KILLED),
        ({"exit_code": 152}, Reason.TIMEOUT),
        ({"exit_code": None}, Reason.SANDBOX_ERROR),
        ({"oom_kills": 1}, Reason.OK),
        ({"oom_kills": 1, "exit_code": 1}, Reason.OOM),
        ({"oom_kills": 1, "exit_code": 137}, Reason.OOM),
        ({"oom_kills": 1, "exit_code": None}, Reason.OOM),
        ({"stopped": Reason.OOM, "exit_code": None}, Reason.OOM),
        ({"stopped": Reason.TIMEOUT, "exit_code": None, "oom_kills": 1}, Reason.TIMEOUT),
        ({"stopped": Reason.OUTPUT_LIMIT, "exit_code": None, "oom_kills": 1}, Reason.OUTPUT_LIMIT),
        ({"stopped": Reason.CANCELED, "exit_code": None}, Reason.CANCELED),
    ],
)
def test_the_first_reason_that_applies_is_told(facts: dict[str, object], reason: Reason) -> None:
    assert reason_for(replace(FINE, **facts)) is reason  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("facts", "hit"),
    [
        ({}, ()),
        ({"oom_kills": 1, "pids_refused": 2}, ("memory", "pids")),
        ({"disk_full": True, "inodes_used_up": True}, ("disk", "inodes")),
        ({"exit_code": 153}, ("file_size",)),
        ({"exit_code": 152}, ("cpu_time",)),
        ({"cpu_time_used_up": True}, ("cpu_time",)),
        ({"exit_code": 159}, ("seccomp",)),
        ({"stderr_seen_bytes": 1}, ("output_truncated",)),
    ],
)
def test_every_limit_that_was_hit_is_named(facts: dict[str, object], hit: tuple[str, ...]) -> None:
    assert limits_hit(replace(FINE, **facts)) == hit  # type: ignore[arg-type]


def test_what_the_sandbox_program_says_is_not_the_commands_output() -> None:
    seen = replace(FINE, exit_code=None, stderr=b"bwrap: Can't mount proc\n", stderr_seen_bytes=24)
    told = record(seen, "bwrap", IsolationLevel.KERNEL)
    assert (told.reason, told.stderr, told.stderr_seen_bytes) == (Reason.SANDBOX_ERROR, b"", 0)
    assert told.detail == "bwrap: Can't mount proc"


def test_a_complaint_is_shown_in_one_harmless_line() -> None:
    assert last_words(b"first\nsecond\x1b[31m\xff\n\nthird\n") == "second?[31m\\xff; third"
    assert last_words(b"") == "no explanation was given"
    assert len(last_words(b"x" * 10_000)) == 300
