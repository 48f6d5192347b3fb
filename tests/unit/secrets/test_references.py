"""Where a secret is, as one word says it, and what happens when it is not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from codeagent.secrets.references import (
    Given,
    InFile,
    InVariable,
    InVault,
    Reference,
    SecretUnavailable,
    parse_reference,
    read_here,
)


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("s3cret", Given("s3cret")),
        ("postgresql://u:p@h/d", Given("postgresql://u:p@h/d")),
        ("k1:AAAA", Given("k1:AAAA")),
        ("file:/run/secrets/x", InFile(Path("/run/secrets/x"))),
        ("env:PGPASSWORD", InVariable("PGPASSWORD")),
        ("vault:codeagent/db#password", InVault("codeagent/db", "password")),
    ],
)
def test_a_text_is_a_secret_or_says_where_it_is(text: str, reference: Reference) -> None:
    assert parse_reference(text) == reference


@pytest.mark.parametrize(
    "text", ["file:hidden", "file:", "env:", "env:hid den", "vault:", "vault:hidden", "vault:#hidden", "vault:../hid#x"]
)
def test_a_reference_that_is_not_whole_is_refused_without_being_quoted(text: str) -> None:
    with pytest.raises(ValueError, match="reference needs") as refused:
        parse_reference(text)
    assert "hid" not in str(refused.value)


def test_what_is_on_this_machine_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", "from the environment")
    (tmp_path / "x").write_text("from a file\n")
    assert read_here(InVariable("PGPASSWORD")) == "from the environment"
    assert read_here(InFile(tmp_path / "x")) == "from a file"
    assert read_here(InFile(tmp_path / "x", str.upper)).strip() == "FROM A FILE"


def test_what_is_not_there_is_told_by_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PGPASSWORD", raising=False)
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "huge").write_bytes(b"x" * 300_000)
    expected = {
        InVariable("PGPASSWORD"): "PGPASSWORD is not set",
        InFile(tmp_path / "missing"): "cannot be read",
        InFile(tmp_path / "empty"): "is empty",
        InFile(tmp_path / "binary"): "does not hold what it should",
        InFile(tmp_path / "huge"): "is too large",
    }
    for reference, reason in expected.items():
        with pytest.raises(SecretUnavailable, match=reason):
            read_here(reference)


def test_a_secret_does_not_show_itself() -> None:
    assert "s3cret" not in repr(Given("s3cret"))
