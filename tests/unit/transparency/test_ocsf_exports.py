"""An export in the OCSF schema proves itself by the CloudEvents in it, and says nothing that they do not."""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import pytest

from codeagent.transparency.exports import ExportCheck, rendering
from codeagent.transparency.findings import Code
from codeagent.transparency.ocsf import RAW, ocsf_ended
from tests.unit.transparency import test_exports
from tests.unit.transparency.ocsf_schema import problems
from tests.unit.transparency.test_exports import KEYS, NOTE, Line, found


def cloud_event(number: int) -> Line:
    return test_exports.line(number) | {"outcome": "success", "resourcekind": "api_key", "resourceid": f"{number}"}


def line(number: int) -> bytes:
    return rendering(cloud_event(number), proving=True)


def file_of(lines: list[bytes], **more: str) -> list[bytes]:
    """With a last line that fits: whoever changes a file makes that anew."""
    data = {"count": len(lines), "sha256": sha256(b"".join(lines)).hexdigest(), **more}
    kind, source = "io.codeagent.audit.export.ended.v1", "/tenants/ten_1/audit"
    end = {"id": "1", "type": kind, "source": source, "time": "2026-11-23T12:00:00.000000Z", "data": data}
    return [*lines, json.dumps(ocsf_ended(end)).encode() + b"\n"]


def test_a_file_that_nobody_has_touched_proves_itself() -> None:
    check = ExportCheck(KEYS)
    file = file_of([line(number) for number in range(3)], checkpoint=NOTE)
    assert found(file, check) == []
    assert (check.lines, check.withheld, check.unproved) == (3, 1, 0)
    assert [problem for each in file for problem in problems(json.loads(each))] == []


def changed(text: bytes, **more: Any) -> bytes:
    return json.dumps(json.loads(text) | more, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def raw_changed(text: bytes, **more: Any) -> bytes:
    """Both of them, in step: whoever does that has to have the log's key as well."""
    return rendering(json.loads(json.loads(text)[RAW]) | more, proving=True)


CHANGES: list[tuple[str, Callable[[bytes], bytes], Code]] = [
    ("actor", lambda text: changed(text, actor={"user": {"uid": "usr_2"}}), Code.RENDERING_CHANGED),
    ("outcome", lambda text: changed(text, status_id=2), Code.RENDERING_CHANGED),
    ("number for a number that is equal", lambda text: changed(text, status_id=True), Code.RENDERING_CHANGED),
    ("something beside it", lambda text: changed(text, mine=1), Code.RENDERING_CHANGED),
    ("attribute twice", lambda text: b'{"time":1,' + text[1:], Code.RENDERING_CHANGED),
    ("spaces", lambda text: b" " + text, Code.RENDERING_CHANGED),
    ("attribute of the event twice", lambda text: text.replace(b'"{\\"', b'"{\\"authid\\":\\"usr_2\\",\\"', 1), Code.RENDERING_CHANGED),
    ("author, in the event too", lambda text: raw_changed(text, authid="usr_2"), Code.ATTRIBUTES_CHANGED),
    ("moment, in the event too", lambda text: raw_changed(text, time="2026-11-24T12:00:00.000000Z"), Code.ATTRIBUTES_CHANGED),
    ("data, in the event too", lambda text: raw_changed(text, data={"key_id": "key_9"}), Code.DATA_CHANGED),
    ("place, in the event too", lambda text: raw_changed(text, logindex="0"), Code.PROOF_REJECTED),
    ("event of another line", lambda text: changed(text, **{RAW: json.loads(line(0))[RAW]}), Code.RENDERING_CHANGED),
    ("event gone", lambda text: rendering(cloud_event(1), proving=False), Code.LINE_MALFORMED),
    ("event that is none", lambda text: changed(text, **{RAW: "[]"}), Code.LINE_MALFORMED),
    ("line of the other format", lambda text: json.dumps(cloud_event(1)).encode() + b"\n", Code.LINE_MALFORMED),
]  # fmt: skip


@pytest.mark.parametrize(("change", "code"), [each[1:] for each in CHANGES], ids=[each[0] for each in CHANGES])
def test_a_line_that_was_changed_is_named_and_the_others_hold(change: Callable[[bytes], bytes], code: Code) -> None:
    assert change(line(1)) != line(1)
    findings = found(file_of([line(0), change(line(1)), line(2)], checkpoint=NOTE))
    assert {each for each, _ in findings} == {code}
    assert all(" line 2" in text for _, text in findings), findings


def test_a_file_that_was_cut_is_named() -> None:
    whole = file_of([line(0), line(1)], checkpoint=NOTE)
    assert [code for code, _ in found(whole[1:])] == [Code.EXPORT_CUT]
    assert [code for code, _ in found(whole[:-1])] == [Code.EXPORT_CUT]


def test_without_proofs_it_says_that_it_is_a_rendering_and_what_verifies() -> None:
    [(code, text)] = found(file_of([rendering(cloud_event(0), proving=False)]))
    assert code == Code.EXPORT_CUT
    assert "OCSF is a rendering: what verifies are CloudEvents" in text
