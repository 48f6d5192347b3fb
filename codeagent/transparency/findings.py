"""What a verification of the log can find."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Code(StrEnum):
    """Stable names of what can be wrong."""

    DATA_CHANGED = "data_changed"
    CONTENT_MISSING = "content_missing"
    ATTRIBUTES_CHANGED = "attributes_changed"
    LEAF_HASH_CHANGED = "leaf_hash_changed"
    EVENT_REPLACED = "event_replaced"
    EVENT_UNREADABLE = "event_unreadable"
    EVENT_DELETED = "event_deleted"
    EVENT_INSERTED = "event_inserted"
    EVENT_MOVED = "event_moved"
    ROW_CORRUPT = "row_corrupt"
    STREAM_BROKEN = "stream_broken"
    LEAF_MISSING = "leaf_missing"
    TILE_CHANGED = "tile_changed"
    TILE_MISSING = "tile_missing"
    TILE_SURPLUS = "tile_surplus"
    CHECKPOINT_MALFORMED = "checkpoint_malformed"
    CHECKPOINT_UNKNOWN_KEY = "checkpoint_unknown_key"
    CHECKPOINT_WRONG_SIGNATURE = "checkpoint_wrong_signature"
    CHECKPOINT_OTHER_LOG = "checkpoint_other_log"
    CHECKPOINT_CHANGED = "checkpoint_changed"
    CHECKPOINT_MISSING = "checkpoint_missing"
    CHECKPOINT_CONTRADICTS = "checkpoint_contradicts_log"
    ANCHOR_CONTRADICTS = "anchor_contradicts_log"
    LOG_TRUNCATED = "log_truncated"
    PROOF_REJECTED = "proof_rejected"
    LINE_MALFORMED = "line_malformed"
    RENDERING_CHANGED = "rendering_changed"
    EXPORT_CUT = "export_cut"


OF_NOTES = {
    "note_malformed": Code.CHECKPOINT_MALFORMED,
    "note_unknown_key": Code.CHECKPOINT_UNKNOWN_KEY,
    "note_wrong_signature": Code.CHECKPOINT_WRONG_SIGNATURE,
    "note_other_log": Code.CHECKPOINT_OTHER_LOG,
}
"""What a rejected note is as a checkpoint."""


@dataclass(frozen=True, slots=True)
class Discrepancy:
    """One thing that is wrong, and where: an entry with its event, a tile, a checkpoint, a line of a file."""

    code: Code
    where: str
    detail: str

    def __str__(self) -> str:
        return f"{self.code} at {self.where}: {self.detail}"
