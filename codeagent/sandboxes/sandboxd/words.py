"""What goes over the wire of the driver protocol's own values: for each, how it is put into words and read again.

Read here is what the helper says, which is believed. What the worker says is read by `requests`, which believes
nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from codeagent.sandboxes.protocol import (
    Connection,
    ExecRecord,
    ExecSpec,
    FileState,
    IsolationLevel,
    Patch,
    ProbeReport,
    Reason,
    Rusage,
    Verdict,
)

Answer = tuple[dict[str, Any], bytes]
"""The header of a frame, and its body."""


def spec_words(spec: ExecSpec) -> dict[str, Any]:
    """All but `stdin`, which is the request's body."""
    return {
        "argv": spec.argv,
        "cwd": spec.cwd,
        "env": dict(spec.env),
        "limits": asdict(spec.limits),
        "egress": spec.egress,
    }


def record_words(record: ExecRecord, told: Mapping[str, int]) -> Answer:
    """All of it but the `told` first bytes of each output, which went before it. The rest of both is the body."""
    words = asdict(record)
    stdout, stderr = words.pop("stdout")[told["stdout"] :], words.pop("stderr")[told["stderr"] :]
    return {**words, "stdout_bytes": len(stdout)}, stdout + stderr


def read_record(words: Mapping[str, Any], body: bytes, told: Mapping[str, bytes | bytearray]) -> ExecRecord:
    plain = dict(words)
    cut = plain.pop("stdout_bytes")
    values: dict[str, Any] = {
        **plain,
        "reason": Reason(words["reason"]),
        "level": IsolationLevel(words["level"]),
        "limits_hit": tuple(words["limits_hit"]),
        "rusage": Rusage(**words["rusage"]),
        "egress": tuple(Connection(**{**seen, "verdict": Verdict(seen["verdict"])}) for seen in words["egress"]),
    }
    stdout, stderr = bytes(told["stdout"]) + body[:cut], bytes(told["stderr"]) + body[cut:]
    return ExecRecord(stdout=stdout, stderr=stderr, **values)


def patch_words(patch: Patch) -> Answer:
    states = {path: asdict(state) for path, state in patch.states.items()}
    return {"files": patch.files, "states": states, "left_out": patch.left_out}, patch.text


def read_patch(words: Mapping[str, Any], body: bytes) -> Patch:
    states = {path: FileState(**state) for path, state in words["states"].items()}
    return Patch(body, tuple(words["files"]), states, tuple(words["left_out"]))


def report_words(report: ProbeReport) -> dict[str, Any]:
    return {**asdict(report), "facts": dict(report.facts), "images": dict(report.images)}


def read_report(words: Mapping[str, Any]) -> ProbeReport:
    return ProbeReport(**{**words, "level": IsolationLevel(words["level"])})
