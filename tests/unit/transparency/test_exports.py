"""Exported lines that prove themselves, and everything that can be done to such a file."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any
from uuid import UUID

import pytest

from codeagent.eventlog.stored import StoredEvent, prepare
from codeagent.messages import events
from codeagent.messages.envelope import to_structured
from codeagent.messages.key_events import ApiKeyRevoked
from codeagent.transparency.checkpoints import Checkpoint
from codeagent.transparency.exports import Entry, ExportCheck, proving
from codeagent.transparency.findings import Code
from codeagent.transparency.keys import LogKeys
from codeagent.transparency.notes import SigningKey
from tests.unit.transparency import reference

ORIGIN = "log.example/audit"
KEY, FOREIGN = SigningKey(ORIGIN, bytes(32)), SigningKey(ORIGIN, bytes([1] * 32))
KEYS = LogKeys(ORIGIN, (), (KEY.verifier,))
Line = dict[str, Any]


def event(number: int) -> StoredEvent:
    """Two keys that were revoked and a run that began, by a person."""
    fact = events.RunStarted(attempt=1) if number == 2 else ApiKeyRevoked(key_id=f"key_{number}")
    return prepare(
        fact,
        stream_id=f"{'run' if number == 2 else 'api_key'}-{number}",
        version=1,
        event_id=UUID(int=number + 1),
        tenant_id="ten_1",
        occurred_at=datetime(2026, 11, 23, 12, tzinfo=UTC),
        metadata={"correlationid": str(UUID(int=9)), "authtype": "app_user", "authid": "usr_1"},
    )


STORED = [event(number) for number in range(3)]
LEAVES = [each.leaf_hash for each in STORED]
NOTE = Checkpoint(ORIGIN, 3, reference.mth(LEAVES)).signed([KEY])


def line(number: int) -> Line:
    stored = STORED[number]
    told = to_structured(stored.envelope(), {} if number == 2 else stored.document())
    return told | proving(stored, Entry(number, tuple(reference.path(number, LEAVES))))


def file_of(lines: list[Line], note: str = NOTE) -> list[bytes]:
    """With a last line that fits: whoever changes a file makes that anew."""
    written = [json.dumps(each).encode() + b"\n" for each in lines]
    digest = sha256(b"".join(written)).hexdigest()
    end = {"data": {"count": len(written), "sha256": digest, "checkpoint": note}}
    return [*written, json.dumps(end).encode() + b"\n"]


def found(file: list[bytes], check: ExportCheck | None = None) -> list[tuple[Code, str]]:
    return [(each.code, str(each)) for each in (check or ExportCheck(KEYS)).findings(file, file[-1])]


def test_a_file_that_nobody_has_touched_proves_itself() -> None:
    check = ExportCheck(KEYS)
    fresh = {name: value for name, value in line(0).items() if name not in {"logindex", "logpath"}}
    assert found(file_of([line(0), line(1), line(2), fresh]), check) == []
    assert (check.lines, check.withheld, check.unproved) == (4, 1, 1)


CHANGES: list[tuple[str, Callable[[list[Line]], object], Code]] = [
    ("data", lambda lines: lines[1].update(data={"key_id": "key_9"}), Code.DATA_CHANGED),
    ("moment", lambda lines: lines[1].update(time="2026-11-24T12:00:00.000000Z"), Code.ATTRIBUTES_CHANGED),
    ("author", lambda lines: lines[1].update(authid="usr_2"), Code.ATTRIBUTES_CHANGED),
    ("author, in the metadata too", lambda lines: lines[1].update(authid="usr_2", logmetadata=lines[1]["logmetadata"].replace("usr_1", "usr_2")), Code.ATTRIBUTES_CHANGED),
    ("stream", lambda lines: lines[1].update(source="/tenants/ten_1/streams/run-1"), Code.ATTRIBUTES_CHANGED),
    ("type", lambda lines: lines[1].update(type="io.codeagent.api_key.created.v1"), Code.ATTRIBUTES_CHANGED),
    ("proof of another event", lambda lines: lines[1].update(logindex="0", logpath=lines[0]["logpath"]), Code.PROOF_REJECTED),
    ("place", lambda lines: lines[1].update(logindex="0"), Code.PROOF_REJECTED),
    ("leaf hash", lambda lines: lines[1].update(leafhash="00" * 32), Code.PROOF_REJECTED),
    ("no proof at all", lambda lines: lines[1].pop("logmetadata"), Code.LINE_MALFORMED),
    ("hash that is none", lambda lines: lines[1].update(logpath="x"), Code.LINE_MALFORMED),
    ("no event", lambda lines: lines[1].clear(), Code.LINE_MALFORMED),
]  # fmt: skip


@pytest.mark.parametrize(("change", "code"), [each[1:] for each in CHANGES], ids=[each[0] for each in CHANGES])
def test_a_line_that_was_changed_is_named_and_the_others_hold(
    change: Callable[[list[Line]], object], code: Code
) -> None:
    lines = [line(0), line(1), line(2)]
    change(lines)
    findings = found(file_of(lines))
    assert code in {each for each, _ in findings}
    assert all(" line 2" in text for _, text in findings), findings


def test_an_event_that_never_was_is_not_proved() -> None:
    forged = event(1)
    forged = replace(forged, id=UUID(int=77))
    line_of_it = line(1) | {"id": str(forged.id)}
    assert {code for code, _ in found(file_of([line_of_it]))} == {Code.ATTRIBUTES_CHANGED}


def test_a_file_that_was_cut_or_signed_by_somebody_else_is_named() -> None:
    whole = file_of([line(0), line(1)])
    assert [code for code, _ in found(whole[1:])] == [Code.EXPORT_CUT]
    assert [code for code, _ in found(whole[:-1])] == [Code.EXPORT_CUT]
    assert [code for code, _ in found([whole[1], whole[0], whole[2]])] == [Code.EXPORT_CUT]
    theirs = Checkpoint(ORIGIN, 3, reference.mth(LEAVES)).signed([FOREIGN])
    assert [code for code, _ in found(file_of([line(0)], theirs))] == [Code.CHECKPOINT_UNKNOWN_KEY]
    other = Checkpoint(ORIGIN, 2, reference.mth(LEAVES[:2])).signed([KEY])
    assert [code for code, _ in found(file_of([line(2)], other))] == [Code.PROOF_REJECTED]
