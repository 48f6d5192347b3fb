"""Signed notes, checkpoints, the proof text and the keys of a log: what is written, and all that is not accepted."""

from __future__ import annotations

import pytest

from codeagent.transparency.checkpoints import Checkpoint, open_checkpoint
from codeagent.transparency.keys import parse_log_keys
from codeagent.transparency.notes import NoteRejected, SigningKey, VerifierKey, encoded, open_note, sign_note
from codeagent.transparency.proof_text import LogProof
from codeagent.transparency.proofs import ProofRejected
from tests.unit.transparency import reference

ORIGIN = "log.example/audit"
KEY, OTHER = SigningKey(ORIGIN, bytes(32)), SigningKey(ORIGIN, bytes([1] * 32))
PETER = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
"""The example key of the Go checksum database's documentation, and a note that it has signed."""
PETERS_NOTE = (
    "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n\n"
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
LEAVES = [reference.leaf(bytes([number])) for number in range(7)]


def checkpoint(size: int = 7) -> Checkpoint:
    return Checkpoint(ORIGIN, size, reference.mth(LEAVES[:size]))


def test_a_note_of_another_implementation_is_read() -> None:
    assert open_note(PETERS_NOTE, [VerifierKey.parse(PETER)]).startswith("If you think")


def test_keys_are_read_as_they_are_written_and_do_not_show_themselves() -> None:
    assert VerifierKey.parse(str(KEY.verifier)) == KEY.verifier
    assert SigningKey.parse(KEY.secret()).verifier == KEY.verifier
    assert encoded(bytes(32))[:20] not in f"{KEY!r}"


@pytest.mark.parametrize(
    "line", ["", "PRIVATE+KEY+", "a+00000000+AA==", PETER.replace("c74f", "c74e"), PETER.replace("ARpc", "BRpc"), "a b"]
)
def test_what_is_no_key_is_refused_without_showing_it(line: str) -> None:
    with pytest.raises(ValueError, match=r"^(line 1 is no key|there is no key)") as refused:
        parse_log_keys([line])
    assert not line or line not in str(refused.value)


def test_during_a_rotation_both_keys_sign_and_either_verifies() -> None:
    keys = parse_log_keys([OTHER.secret(), "", KEY.secret()])
    note = checkpoint().signed(keys.signing)
    assert note.count("\n— ") == 2
    for key in (KEY, OTHER):
        assert open_checkpoint(note, ORIGIN, [key.verifier]) == checkpoint()


def test_afterwards_the_old_key_verifies_what_it_has_signed() -> None:
    keys = parse_log_keys([OTHER.secret(), str(KEY.verifier)])
    assert keys.signing[0].verifier == OTHER.verifier
    assert open_checkpoint(checkpoint().signed([KEY]), keys.origin, keys.verifying) == checkpoint()


def test_keys_of_two_logs_do_not_mix() -> None:
    with pytest.raises(ValueError, match="one name"):
        parse_log_keys([KEY.secret(), PETER])


@pytest.mark.parametrize(
    ("note", "code"),
    [
        (checkpoint().signed([OTHER]), "note_unknown_key"),
        (checkpoint().signed([KEY]).replace("\n7\n", "\n8\n"), "note_wrong_signature"),
        (checkpoint().signed([OTHER, KEY]).replace("\n7\n", "\n8\n"), "note_wrong_signature"),
        (Checkpoint("elsewhere.example", 7, LEAVES[0]).signed([KEY]), "note_other_log"),
        (sign_note("three\nwords\nhere\n", [KEY]), "note_malformed"),
        (sign_note(f"{ORIGIN}\n07\n{encoded(LEAVES[0])}\n", [KEY]), "note_malformed"),
        (sign_note(f"{ORIGIN}\n7\n{encoded(b'short')}\n", [KEY]), "note_malformed"),
        (sign_note(f"{ORIGIN}\n7\n", [KEY]), "note_malformed"),
        (checkpoint().signed([]), "note_malformed"),
        (checkpoint().signed([KEY]).replace("— ", "- "), "note_malformed"),
        (checkpoint().signed([KEY])[:-1], "note_malformed"),
        (checkpoint().signed([KEY]).replace("7", "7\r"), "note_malformed"),
        ("", "note_malformed"),
    ],
)
def test_a_checkpoint_is_believed_only_as_the_log_has_signed_it(note: str, code: str) -> None:
    with pytest.raises(NoteRejected) as rejected:
        open_checkpoint(note, ORIGIN, [KEY.verifier])
    assert rejected.value.code == code


def proof(index: int = 3, size: int = 7) -> LogProof:
    return LogProof(index, tuple(reference.path(index, LEAVES[:size])), checkpoint(size).signed([KEY]))


def test_a_proof_is_read_as_it_is_written_and_verifies_by_itself() -> None:
    text = str(proof())
    assert text.startswith("c2sp.org/tlog-proof@v1\nindex 3\n")
    assert LogProof.parse(text) == proof()
    assert LogProof.parse(text.replace("index", "extra eA==\nindex", 1)) == proof()
    assert LogProof.parse(text).check(LEAVES[3], ORIGIN, [KEY.verifier]) == checkpoint()
    alone = LogProof.parse(str(proof(0, 1)))
    assert alone.check(LEAVES[0], ORIGIN, [KEY.verifier]).size == 1


def test_a_proof_of_another_event_is_rejected() -> None:
    with pytest.raises(ProofRejected, match="not number 3"):
        proof().check(LEAVES[4], ORIGIN, [KEY.verifier])


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("@v1", "@v2"),
        lambda text: text.replace("index 3", "index 03"),
        lambda text: text.replace("index 3\n", ""),
        lambda text: text.replace("index 3\n", "index 3\nAA==\n"),
        lambda text: text.replace("index 3\n", "index 3\n!\n"),
        lambda text: text.replace("\n\n", "\n"),
        lambda text: "",
    ],
)
def test_what_is_no_proof_is_rejected(change: object) -> None:
    with pytest.raises(ProofRejected):
        LogProof.parse(change(str(proof())))  # type: ignore[operator]
