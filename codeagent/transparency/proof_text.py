"""Proofs as a text that needs nothing else to be verified (c2sp.org/tlog-proof@v1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from codeagent.transparency.checkpoints import Checkpoint, open_checkpoint
from codeagent.transparency.notes import VerifierKey, decoded, encoded
from codeagent.transparency.proofs import ProofRejected, check_inclusion
from codeagent.transparency.tree import HASH_BYTES

_HEADER = "c2sp.org/tlog-proof@v1"
_MOST_HASHES = 63


@dataclass(frozen=True, slots=True)
class LogProof:
    """That an entry is number `index` of the log that the signed checkpoint `note` tells of."""

    index: int
    path: tuple[bytes, ...]
    note: str

    def __str__(self) -> str:
        lines = [_HEADER, f"index {self.index}", *(encoded(hashed) for hashed in self.path)]
        return "\n".join(lines) + f"\n\n{self.note}"

    @classmethod
    def parse(cls, text: str) -> LogProof:
        """Raises `ProofRejected`. Extra data is allowed, and not kept since nothing vouches for it."""
        head, blank, note = text.partition("\n\n")
        lines = head.split("\n")
        if lines[0] != _HEADER or not blank:
            raise ProofRejected(f"not a {_HEADER}")
        rest = lines[2:] if len(lines) > 1 and lines[1].startswith("extra ") else lines[1:]
        word, _, number = rest[0].partition(" ") if rest else ("", "", "")
        if word != "index" or not (number.isascii() and number.isdecimal()) or number != str(int(number)):
            raise ProofRejected("the proof names no index")
        try:
            path = tuple(decoded(line) for line in rest[1:])
        except ValueError:
            raise ProofRejected("a hash of the proof is not base64") from None
        if len(path) > _MOST_HASHES or any(len(hashed) != HASH_BYTES for hashed in path):
            raise ProofRejected("a hash of the proof has not 32 bytes, or there are too many of them")
        return cls(int(number), path, note)

    def check(self, leaf: bytes, origin: str, keys: Sequence[VerifierKey]) -> Checkpoint:
        """The checkpoint that vouches for the leaf. Raises `NoteRejected` or `ProofRejected`."""
        checkpoint = open_checkpoint(self.note, origin, keys)
        check_inclusion(self.index, checkpoint.size, leaf, self.path, checkpoint.root)
        return checkpoint
