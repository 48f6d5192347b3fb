"""What a checkpoint states of restores, what that gives up, and what it never does."""

from __future__ import annotations

import pytest

from codeagent.transparency.checkpoints import Checkpoint, Cut, open_checkpoint, restores_in
from codeagent.transparency.notes import NoteRejected, SigningKey, encoded, sign_note
from codeagent.transparency.proofs import ProofRejected
from codeagent.transparency.restores import shortfall

ORIGIN = "log.example/audit"
KEY = SigningKey(ORIGIN, bytes(32))
ROOT, OTHER = bytes(32), bytes([1] * 32)
FIRST, SECOND = Cut(3, 9, ROOT), Cut(2, 20, ROOT)


def at(size: int, *cuts: Cut, root: bytes = ROOT) -> Checkpoint:
    return Checkpoint(ORIGIN, size, root, cuts)


def test_a_checkpoint_tells_of_its_restores_in_its_signed_text() -> None:
    note = at(12, FIRST, SECOND).signed([KEY])
    assert open_checkpoint(note, ORIGIN, [KEY.verifier]) == at(12, FIRST, SECOND)
    assert restores_in(note) == 2
    assert f"\nrestored 3 of 9 {encoded(ROOT)}\n" in note
    assert restores_in(at(12).signed([KEY])) == 0


@pytest.mark.parametrize(
    "line", ["restored 3", "restored 9 of 9 {}", "restored 03 of 9 {}", "restored 3 of 9 AAAA", "restored -1 of 9 {}"]
)
def test_a_statement_that_is_none_makes_the_note_none(line: str) -> None:
    text = f"{ORIGIN}\n12\n{encoded(ROOT)}\n{line.format(encoded(ROOT))}\n"
    with pytest.raises(NoteRejected, match="a restore which is none"):
        open_checkpoint(sign_note(text, [KEY]), ORIGIN, [KEY.verifier])


def test_another_extension_of_a_checkpoint_is_nobodys_business() -> None:
    note = sign_note(f"{ORIGIN}\n12\n{encoded(ROOT)}\nsaid by somebody\n", [KEY])
    assert open_checkpoint(note, ORIGIN, [KEY.verifier]) == at(12)


@pytest.mark.parametrize(
    ("earlier", "given_up"),
    [
        (at(3), False),  # the log still has it
        (at(4), True),
        (at(9), True),
        (at(9, root=OTHER), False),  # not the one that was known
        (at(10), False),  # signed, and not known of
        (at(4, FIRST), False),  # the log's own story
        (at(9, FIRST), False),
        (at(4, SECOND), False),  # another log's story
        (at(4, FIRST, SECOND), False),  # one that the log knows nothing of
    ],
)
def test_a_restore_gives_up_what_it_knows_of_and_nothing_of_the_logs_own(earlier: Checkpoint, given_up: bool) -> None:
    assert at(6, FIRST).gives_up(earlier) is given_up
    assert not at(6).gives_up(earlier)


def test_a_second_restore_gives_up_of_both_stories() -> None:
    log = at(5, FIRST, SECOND)
    assert [log.gives_up(each) for each in (at(2), at(3), at(2, FIRST), at(3, FIRST), at(20, FIRST))] == [
        False, True, False, True, True,
    ]  # fmt: skip
    assert not log.gives_up(at(21, FIRST))


def test_what_a_log_lacks_is_what_the_newest_story_has_beyond_it() -> None:
    assert shortfall(at(5), []) is None
    assert shortfall(at(5), [at(3), at(5)]) is None
    assert shortfall(at(6, FIRST), [at(9), at(5, FIRST)]) is None
    lacking = shortfall(at(5), [at(3), at(9), at(7)])
    assert lacking is not None
    assert lacking.stated == at(5, Cut(5, 9, ROOT))
    again = shortfall(at(8), [at(9), at(20, FIRST)])
    assert again is not None
    assert again.stated == at(8, FIRST, Cut(3, 20, ROOT)), "what was given up with the first restore stays so"
    with pytest.raises(ProofRejected, match="other restores"):
        shortfall(at(8, SECOND), [at(20, FIRST, FIRST)])
