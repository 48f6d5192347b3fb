"""Exported events that prove themselves: what a line carries so that its leaf and the way to a signed root can be
computed from it, and a check of all lines that needs the file and the log's public keys alone. Lines of the OCSF
schema carry the event beside what they make of it, and both are checked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from uuid import UUID

import orjson

from codeagent.eventlog.hashing import canonical_json
from codeagent.eventlog.stored import StoredEvent, leaf_of, stored_digest
from codeagent.messages.envelope import from_structured
from codeagent.transparency.checkpoints import Checkpoint, open_checkpoint
from codeagent.transparency.findings import OF_NOTES, Code, Discrepancy
from codeagent.transparency.keys import LogKeys
from codeagent.transparency.notes import NoteRejected, decoded, encoded
from codeagent.transparency.ocsf import RAW, is_ocsf, ocsf_event
from codeagent.transparency.proofs import ProofRejected, check_inclusion

_WITHHELD = ("run-", "call-", "exec-")
"""Streams of which an export does not tell, or not all, what their events say."""
_SAID = {"correlationid": None, "causationid": None, "authtype": "system", "authid": "system"}
"""Attributes of a line that are in the metadata, and what stands for those that are not."""
_NO_END = "it does not tell what came before, with its checkpoint"
_NO_PROOF = f"OCSF is a rendering: what verifies are CloudEvents, which its lines have in {RAW} when taken with proofs"


@dataclass(frozen=True, slots=True)
class Entry:
    """Where an event is in the log, and the proof of it."""

    index: int
    path: tuple[bytes, ...]


def proving(event: StoredEvent, entry: Entry | None) -> dict[str, str]:
    """Extension attributes for the line of an event; without the last two where it is no entry of the log yet."""
    told = {"logmetadata": canonical_json(event.metadata).decode(), "datadigest": event.data_digest.hex()}
    if event.key_id is not None:
        # The rest of what is in `data` is sealed, and its digest all that the leaf commits to.
        told |= {
            "keyid": event.key_id,
            "keptdata": event.kept.decode(errors="replace"),
            "sealeddigest": _hex(event.sealed_digest),
        }
    if entry is not None:
        told |= {"logindex": str(entry.index), "logpath": " ".join(map(encoded, entry.path))}
    return told


def _event_of(line: Mapping[str, Any]) -> StoredEvent:
    """Raises `Unreadable`, `ValueError` or `KeyError` for what is no line with its proof."""
    envelope = from_structured(line)
    metadata, key_id = orjson.loads(line["logmetadata"]), line.get("keyid")
    if not isinstance(metadata, dict) or envelope.sequence is None:
        raise ValueError("not the line of an event")
    return StoredEvent(
        stream_id=envelope.source.partition("/streams/")[2],
        version=envelope.sequence,
        id=UUID(str(envelope.id)),
        type=envelope.name,
        schema_version=envelope.version,
        tenant_id=envelope.tenant_id,
        data=orjson.dumps(line["data"]) if key_id is None else line["keptdata"].encode(),
        data_digest=bytes.fromhex(line["datadigest"]),
        metadata=metadata,
        occurred_at=envelope.time,
        leaf_hash=bytes.fromhex(line["leafhash"]),
        key_id=key_id,
        sealed_digest=None if key_id is None else bytes.fromhex(line["sealeddigest"]),
    )


def _hex(digest: bytes | None) -> str:
    return "" if digest is None else digest.hex()


@dataclass(slots=True)
class ExportCheck:
    """Holds lines against the checkpoint that the last one carries. The counts are those of the lines so far."""

    keys: LogKeys
    lines: int = 0
    unproved: int = 0
    """Lines that were no entries of the log when they were exported."""
    withheld: int = 0
    """Lines of which the data is not in the file, or not all of it."""
    _rendered: bool = False
    """Whether lines are of the OCSF schema."""

    def findings(self, lines: Iterable[bytes], last: bytes) -> Iterator[Discrepancy]:
        """`lines` are all of them, line ends included, the `last` one too."""
        try:
            end = orjson.loads(last)
            self._rendered = is_ocsf(end)
            end = (end["unmapped"] if self._rendered else end)["data"]
            count, digest, note = int(end["count"]), str(end["sha256"]), end["checkpoint"]
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
            yield Discrepancy(Code.EXPORT_CUT, "the last line", _NO_PROOF if self._rendered else _NO_END)
            return
        opened = self._opened(note)
        checkpoint = opened if isinstance(opened, Checkpoint) else None
        if isinstance(opened, Discrepancy):
            yield opened
        seen, held = sha256(), b""
        for line in lines:
            if held:
                seen.update(held)
                self.lines += 1
                yield from self._line(self.lines, held, checkpoint)
            held = line
        if (self.lines, seen.hexdigest()) != (count, digest):
            detail = f"its {self.lines} lines are not the {count} that the last line tells of"
            yield Discrepancy(Code.EXPORT_CUT, "the file", detail)

    def _opened(self, note: str) -> Checkpoint | Discrepancy:
        try:
            return open_checkpoint(str(note), self.keys.origin, self.keys.verifying)
        except NoteRejected as error:
            return Discrepancy(OF_NOTES[error.code], "the last line", error.detail)

    def _line(self, number: int, text: bytes, checkpoint: Checkpoint | None) -> Iterator[Discrepancy]:
        where = f"line {number}"
        try:
            line, rendered = orjson.loads(text), text
            if self._rendered:
                line = orjson.loads(line[RAW])
                rendered = rendering(line, proving=True)
            event = _event_of(line)
            entry = _entry_of(line)
        except Exception as error:  # whatever somebody has made of it
            yield Discrepancy(Code.LINE_MALFORMED, where, f"not an event with its proof ({type(error).__name__})")
            return
        where = f"line {number} (event {event.id})"
        if text != rendered:  # byte for byte, so that no reader finds something else in it
            detail = f"it is not what this release makes of the CloudEvent in its {RAW}"
            yield Discrepancy(Code.RENDERING_CHANGED, where, detail)
        if leaf_of(event) != event.leaf_hash:
            yield Discrepancy(Code.ATTRIBUTES_CHANGED, where, "its attributes do not match its leaf hash")
        wrong = [name for name, other in _SAID.items() if line.get(name) != event.metadata.get(name, other)]
        if wrong:
            yield Discrepancy(Code.ATTRIBUTES_CHANGED, where, f"{', '.join(wrong)} is not that of its metadata")
        withheld = event.stream_id.startswith(_WITHHELD)
        self.withheld += withheld or event.key_id is not None
        if not withheld and stored_digest(event) != event.data_digest:
            yield Discrepancy(Code.DATA_CHANGED, where, "its data does not match its digest")
        if entry is None:
            self.unproved += 1
        elif checkpoint is not None:
            yield from _proved(where, event.leaf_hash, entry, checkpoint)


def _entry_of(line: Mapping[str, Any]) -> Entry | None:
    if "logindex" not in line:
        return None
    return Entry(int(line["logindex"]), tuple(decoded(text) for text in line["logpath"].split()))


def rendering(event: Mapping[str, Any], *, proving: bool) -> bytes:
    """The line of a CloudEvent in the OCSF schema, which has the CloudEvent whole where that is to prove itself."""
    raw = {RAW: orjson.dumps(event).decode()} if proving else {}
    return orjson.dumps(ocsf_event(event) | raw, option=orjson.OPT_APPEND_NEWLINE)


def _proved(where: str, leaf: bytes, entry: Entry, checkpoint: Checkpoint) -> Iterator[Discrepancy]:
    try:
        check_inclusion(entry.index, checkpoint.size, leaf, entry.path, checkpoint.root)
    except ProofRejected as error:
        yield Discrepancy(Code.PROOF_REJECTED, where, error.detail)
