"""The keys of a log, one a line: private ones sign, all of them verify. Their common name is the log's origin.

To rotate, a new private key goes in front: checkpoints carry the signatures of both for as long as the old one stays.
Later its public half takes its place, and what it has signed still verifies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from codeagent.transparency.notes import SigningKey, VerifierKey


@dataclass(frozen=True, slots=True)
class LogKeys:
    """`signing` may be empty, for those who only verify."""

    origin: str
    signing: tuple[SigningKey, ...]
    verifying: tuple[VerifierKey, ...]


def parse_log_keys(lines: Sequence[str]) -> LogKeys:
    """Empty lines do not count. Raises `ValueError`, never telling a key."""
    signing: list[SigningKey] = []
    verifying: list[VerifierKey] = []
    for number, line in enumerate(lines, start=1):
        if not (text := line.strip()):
            continue
        try:
            if text.startswith("PRIVATE+"):
                signing.append(SigningKey.parse(text))
                verifying.append(signing[-1].verifier)
            else:
                verifying.append(VerifierKey.parse(text))
        except ValueError as error:
            raise ValueError(f"line {number} is no key of a log: {error}") from None
    names = {key.name for key in verifying}
    if len(names) != 1:
        raise ValueError("keys of one log have one name, its origin" if names else "there is no key")
    return LogKeys(verifying[0].name, tuple(signing), tuple(verifying))
