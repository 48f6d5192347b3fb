"""What failed beside others is looked at again, and only what then passes twice has not failed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import second_look

COUNTED = """
from pathlib import Path

def test_it():
    times = Path("times")
    times.write_text((times.read_text() if times.exists() else "") + "x")
    assert len(times.read_text()) != {fails_at}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    second_look.FAILED.parent.mkdir(parents=True)
    return tmp_path


def ended(*tests: str) -> None:
    second_look.FAILED.write_text(json.dumps(dict.fromkeys(tests, True)))


def test_what_passes_twice_by_itself_is_named_and_has_not_failed(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (folder / "test_f.py").write_text(COUNTED.format(fails_at=0))
    ended("test_f.py::test_it")
    assert second_look.main() == 0
    assert (folder / "times").read_text() == "xx"
    assert "FLAKY: failed beside others, and passed by themselves:\n  test_f.py::test_it" in capfd.readouterr().out


@pytest.mark.parametrize("fails_at", [1, 2])
def test_what_fails_once_more_has_failed(folder: Path, fails_at: int) -> None:
    (folder / "test_f.py").write_text(COUNTED.format(fails_at=fails_at))
    ended("test_f.py::test_it")
    assert second_look.main() == 1


@pytest.mark.parametrize(
    "tests",
    [[], [f"test_f.py::test_{number}" for number in range(second_look.MOST + 1)], ["test_f.py"]],
    ids=["unknown", "too many", "a file that cannot be read"],
)
def test_nothing_else_is_looked_at_again(folder: Path, tests: list[str]) -> None:
    (folder / "test_f.py").write_text(COUNTED.format(fails_at=0))
    ended(*tests)
    assert second_look.main() == 1
    assert not (folder / "times").exists()


def test_a_run_that_told_nothing_has_failed(folder: Path) -> None:
    assert second_look.main() == 1
