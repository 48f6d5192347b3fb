"""Key-encryption keys are made, added where they do no harm, and never lost."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from codeagent.cli.kek_file import own_keys
from codeagent.cli.main import app
from codeagent.encryption import parse_keys


def new_kek(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["kek", "new", *arguments])
    return result.exit_code, result.output


def names(path: Path) -> list[str]:
    return list(parse_keys(path.read_text().splitlines()))


def test_a_key_is_printed_as_a_line_of_the_file() -> None:
    status, line = new_kek("k1")
    [(name, key)] = parse_keys(line.splitlines()).items()
    assert (status, name, len(key)) == (0, "k1", 32)
    assert new_kek("k1")[1] != line


def test_without_a_name_it_has_the_days() -> None:
    assert len(next(iter(parse_keys(new_kek()[1].splitlines())))) == len("2026-11-26")


def test_a_key_is_added_behind_and_in_front_only_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "kek"
    for arguments in (("one",), ("two",), ("three", "--use")):
        assert new_kek(*arguments, "--file", str(path)) == (0, "")
    assert names(path) == ["three", "one", "two"]
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("name", ["one", "a name", ""])
def test_a_name_that_is_taken_or_cannot_be_changes_nothing(tmp_path: Path, name: str) -> None:
    path = tmp_path / "kek"
    new_kek("one", "--file", str(path))
    before = path.read_text()
    status, said = new_kek(name, "--file", str(path)) if name else new_kek("x:y", "--file", str(path))
    assert status == 2
    assert str(path) in said
    assert path.read_text() == before


def test_a_data_directory_has_one_key_from_its_first_start_on(tmp_path: Path) -> None:
    path = own_keys(tmp_path)
    before = path.read_text()
    assert names(path) == ["first"]
    assert path.stat().st_mode & 0o777 == 0o600
    assert own_keys(tmp_path).read_text() == before
