"""A command's output as text for people and models: whole characters, and nothing that steers a terminal."""

from __future__ import annotations

import codecs
import re

_LONGEST_HELD = 4096
_STRINGS = "\x90\x98\x9d\x9e\x9f"
"""The one-byte introducers of control strings: DCS, SOS, OSC, PM, APC."""
_STRING = rf"(?:\x1b[\]PX^_]|[{_STRINGS}])[^\x07\x1b\x9b\x9c\n{_STRINGS}]{{0,{_LONGEST_HELD}}}"
_CSI = r"(?:\x1b\[|\x9b)[\x30-\x3f]{0,64}[\x20-\x2f]{0,16}"
_ESCAPE = r"\x1b[\x20-\x2f]{0,16}"
_SEQUENCES = re.compile(
    rf"{_STRING}(?:\x07|\x1b\\|\x9c)|{_CSI}[\x40-\x7e]|{_ESCAPE}[\x30-\x7e]|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]"
)
_UNFINISHED = re.compile(rf"(?:{_STRING}\x1b?|{_CSI}|{_ESCAPE})\Z")


class PlainText:
    """One stream's bytes on their way to being text. What a piece leaves unfinished, such as half a character or half
    an escape sequence, waits for the next one. Line ends become `\\n`, those that only return as well."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self._returned = False

    def feed(self, piece: bytes) -> str:
        return self._plain(self._held + self._decoder.decode(piece), final=False)

    def finish(self) -> str:
        """What was waiting. Nothing may be fed afterwards."""
        return self._plain(self._held + self._decoder.decode(b"", final=True), final=True)

    def _plain(self, text: str, *, final: bool) -> str:
        unfinished = None if final else _UNFINISHED.search(text)
        cut = len(text) if unfinished is None else unfinished.start()
        # Longer than any real sequence, it is text that only begins like one.
        if len(text) - cut > _LONGEST_HELD:
            cut = len(text)
        self._held = text[cut:]
        return self._with_line_ends(_SEQUENCES.sub("", text[:cut]))

    def _with_line_ends(self, text: str) -> str:
        if not text:
            return text
        if self._returned and text[0] == "\n":
            text = text[1:]
            self._returned = False
            if not text:
                return text
        self._returned = text[-1] == "\r"
        return text.replace("\r\n", "\n").replace("\r", "\n")


def plain(output: bytes) -> str:
    """All of an output at once."""
    text = PlainText()
    return text.feed(output) + text.finish()
