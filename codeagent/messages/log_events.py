"""What operators do with the proof of the log itself: a stream `log-<id>` for each act, which no tenant sees."""

from __future__ import annotations

from typing import ClassVar

from codeagent.messages.envelope import Event


class LogRestored(Event):
    """The log goes on from its first `kept` entries, though `signed` were signed, with this root as hexadecimal digits:
    it was restored to an earlier moment. The checkpoint that covers this fact states the same."""

    NAME: ClassVar[str] = "log.restored"

    kept: int
    signed: int
    root: str
