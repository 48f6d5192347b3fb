"""Output as text: in whatever pieces it comes, the same, and harmless to a terminal."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codeagent.sandboxes.plain_text import PlainText, plain


@pytest.mark.parametrize(
    ("output", "text"),
    [
        (b"plain\n\ttext\n", "plain\n\ttext\n"),
        ("grüße €".encode(), "grüße €"),
        (b"bad \xff\xc3( end", "bad ��( end"),
        (b"\x1b[31mred\x1b[0m \x1b[2J\x1b[1;1Hhome", "red home"),
        (b"\x1b]0;a title\x07text", "text"),
        (b"\x1b]52;c;aGVsbG8=\x1b\\text", "text"),
        ("\x9d8;;https://h\x9clink\x9d8;;\x9c".encode(), "link"),
        (b"\x1bP+q544e\x1b\\dcs \x1b_apc\x1b\\ \x1b^pm\x1b\\", "dcs  "),
        (b"\x1bcreset \x1b(Bcharset \x1b7", "reset charset "),
        (b"bell\x07 back\x08 nul\x00 del\x7f", "bell back nul del"),
        (b"one\r\ntwo\rthree\n", "one\ntwo\nthree\n"),
        (b"\x1b]0;never ends\nnext line", "0;never ends\nnext line"),
        (b"ends in \x1b", "ends in "),
    ],
)
def test_what_steers_a_terminal_is_gone(output: bytes, text: str) -> None:
    assert plain(output) == text


OUTPUTS = st.lists(
    st.sampled_from(
        [b"a", "é€😀".encode(), b"\x1b", b"[", b"]", b"0;t", b"\x07", b"\\", b"\r", b"\n", b"\xff", b"\xc2\x9d"]
    )
).map(b"".join)


@given(OUTPUTS, st.integers(1, 5))
def test_however_it_is_cut_into_pieces_it_is_the_same(output: bytes, size: int) -> None:
    text = PlainText()
    pieces = [text.feed(output[start : start + size]) for start in range(0, len(output), size)]
    assert "".join([*pieces, text.finish()]) == plain(output)
    assert not any(char < " " and char not in "\t\n" for char in plain(output))


def test_a_sequence_that_never_ends_holds_nothing_back_for_ever() -> None:
    text = PlainText()
    shown = text.feed(b"\x1b]0;" + b"x" * 3000) + text.feed(b"x" * 3000)
    assert shown.count("x") == 6000


@pytest.mark.parametrize("piece", [b"\x1b]", b"\xc2\x9d", b"\x1b[", b"\x1b[0;", b"\x1b", b"\x1b]0;x", b"\r", b"\xff"])
def test_no_output_makes_it_slow(piece: bytes) -> None:
    output = piece * (1_000_000 // len(piece))
    began = time.process_time()
    plain(output)
    assert time.process_time() - began < 3.0
