"""Why a connection is closed: the codes of RFC 6455, and ours, which follow HTTP's."""

from __future__ import annotations

from enum import IntEnum


class Code(IntEnum):
    NOT_TEXT = 1003
    NOT_JSON = 1007
    UNKNOWN_FRAME = 1008
    TOO_LARGE = 1009  # said by the server below us, which reads no further
    INTERNAL_ERROR = 1011
    RECONNECT = 1012
    TOO_SLOW = 1013
    UNAUTHENTICATED = 4401
    FORBIDDEN = 4403
    AUTH_TIMEOUT = 4408
    TOO_MANY = 4429
    UNAVAILABLE = 4503


class Closed(Exception):
    """Ends the connection. `reason` is a stable word, as clients read it in the close frame."""

    def __init__(self, code: Code, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Gone(Exception):
    """The client has left: there is nobody to tell anything."""
