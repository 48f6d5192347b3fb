"""Data of an older version, lifted by a function that expects it to be sound."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from codeagent.errors import Unreadable
from codeagent.messages.catalog import CURRENT, UPCASTERS, decode_data
from codeagent.messages.events import InputRequired

GOLDEN = Path(__file__).resolve().parents[3] / "schemas" / "examples" / "run.input_required.v1.json"
NAME = InputRequired.NAME


class Lifted(InputRequired):
    VERSION = 2


def lift(document: dict[str, Any]) -> dict[str, Any]:
    request = document["request"]
    first = request["decisions"][0]
    return {**document, "request": {**request, "tool": request["tool"].lower(), "decisions": [first]}}


@pytest.fixture(autouse=True)
def second_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CURRENT, NAME, Lifted)
    monkeypatch.setitem(UPCASTERS, (NAME, 1), lift)


def test_sound_data_is_lifted() -> None:
    event = decode_data(NAME, 1, GOLDEN.read_bytes())
    assert isinstance(event, Lifted)
    assert len(event.request.decisions) == 1


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff00",
        b"[]",
        b"null",
        b"7",
        b'"text"',
        b"{}",
        b'{"request": null}',
        b'{"request": []}',
        b'{"request": {"decisions": []}}',
        b'{"request": {"decisions": {}, "tool": 7}}',
        b'{"request": {"decisions": ["reject"], "tool": 7}}',
        b'{"request": {"decisions": ["reject"], "tool": "shell"}}',
        b'{"installed":7,"message":7}',
        GOLDEN.read_bytes()[:-2],
    ],
)
@pytest.mark.parametrize("version", [0, 1, 2])
def test_whatever_else_stands_there_is_unreadable_and_no_bug(data: bytes, version: int) -> None:
    with pytest.raises(Unreadable) as told:
        decode_data(NAME, version, data)
    assert told.value.code == "invalid_payload"
