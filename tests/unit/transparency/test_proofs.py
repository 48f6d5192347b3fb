"""The tree, its proofs and their verification, against the RFC's own recursive definitions and published vectors."""

from __future__ import annotations

import pytest

from codeagent.transparency.proofs import (
    ProofRejected,
    check_consistency,
    check_inclusion,
    consistency_ranges,
    inclusion_ranges,
)
from codeagent.transparency.tree import EMPTY_ROOT, CompactRange, perfect_root, range_hash
from tests.unit.transparency import reference

PUBLISHED = {
    1: "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    2: "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    3: "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    5: "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    7: "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    8: "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
}
"""Roots of the eight entries that implementations of Certificate Transparency are tested with."""
ENTRIES = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
SIZES = (1, 2, 3, 5, 7, 8, 13, 31, 32, 33, 64, 100)
LEAVES = [reference.leaf(bytes([number])) for number in range(max(SIZES))]


def grown(size: int) -> CompactRange:
    tree = CompactRange()
    for leaf in LEAVES[:size]:
        tree.append(leaf)
    return tree


def hash_of(start: int, end: int) -> bytes:
    def node_of(height: int, index: int) -> bytes:
        return perfect_root(LEAVES[index << height : (index + 1) << height])

    return range_hash(start, end, node_of)


def inclusion(index: int, size: int) -> list[bytes]:
    return [hash_of(*wanted) for wanted in inclusion_ranges(index, size)]


def consistency(old: int, new: int) -> list[bytes]:
    return [hash_of(*wanted) for wanted in consistency_ranges(old, new)]


@pytest.mark.parametrize("size", PUBLISHED)
def test_roots_are_the_published_ones(size: int) -> None:
    tree = CompactRange()
    for entry in ENTRIES[:size]:
        tree.append(reference.leaf(bytes.fromhex(entry)))
    assert tree.root().hex() == PUBLISHED[size]


@pytest.mark.parametrize("size", SIZES)
def test_a_tree_that_grows_has_the_root_of_the_definition(size: int) -> None:
    assert grown(size).root() == hash_of(0, size) == reference.mth(LEAVES[:size])


def test_a_tree_without_leaves_has_a_root_of_its_own() -> None:
    assert CompactRange().root() == reference.mth([]) == EMPTY_ROOT


def test_a_copy_grows_alone() -> None:
    tree = grown(5)
    tree.copy().append(LEAVES[5])
    assert tree.root() == reference.mth(LEAVES[:5])


def test_a_tree_is_not_made_of_the_wrong_number_of_hashes() -> None:
    with pytest.raises(ValueError, match="2 perfect subtrees, not 1"):
        CompactRange(5, [EMPTY_ROOT])


@pytest.mark.parametrize("size", SIZES)
def test_every_inclusion_proof_is_that_of_the_definition_and_verifies(size: int) -> None:
    root = reference.mth(LEAVES[:size])
    for index in range(size):
        proof = inclusion(index, size)
        assert proof == reference.path(index, LEAVES[:size])
        check_inclusion(index, size, LEAVES[index], proof, root)


@pytest.mark.parametrize("size", SIZES)
def test_no_inclusion_proof_verifies_for_anything_else(size: int) -> None:
    root = reference.mth(LEAVES[:size])
    for index in range(size):
        proof = inclusion(index, size)
        wrong = [
            (index, size, EMPTY_ROOT, proof, root),
            (index, size, LEAVES[index], proof, EMPTY_ROOT),
            (index, size, LEAVES[index], [*proof, EMPTY_ROOT], root),
            (size, size, LEAVES[index], proof, root),
            (-1, size, LEAVES[index], proof, root),
            *((index, size, LEAVES[index], proof[:-1], root) for _ in proof[:1]),
            *((index, size, LEAVES[index], [EMPTY_ROOT, *proof[1:]], root) for _ in proof[:1]),
            *((other, size, LEAVES[index], proof, root) for other in range(size) if other != index),
        ]
        for arguments in wrong:
            with pytest.raises(ProofRejected):
                check_inclusion(*arguments)


@pytest.mark.parametrize("new", SIZES)
def test_every_consistency_proof_is_that_of_the_definition_and_verifies(new: int) -> None:
    for old in range(1, new + 1):
        proof = consistency(old, new)
        assert proof == reference.consistency(old, LEAVES[:new])
        check_consistency(old, new, proof, reference.mth(LEAVES[:old]), reference.mth(LEAVES[:new]))
    check_consistency(0, new, [], EMPTY_ROOT, reference.mth(LEAVES[:new]))


@pytest.mark.parametrize("new", SIZES[1:])
def test_no_consistency_proof_verifies_for_another_history(new: int) -> None:
    forked = [EMPTY_ROOT, *LEAVES[1:new]]
    for old in range(1, new):
        proof, before, after = consistency(old, new), reference.mth(LEAVES[:old]), reference.mth(LEAVES[:new])
        for arguments in (
            (old, new, proof, reference.mth(forked[:old]), after),
            (old, new, proof, before, reference.mth(forked)),
            (old, new, reference.consistency(old, forked), before, reference.mth(forked)),
            (old, new, proof[:-1], before, after),
            (old, new, [*proof, EMPTY_ROOT], before, after),
            (new, old, proof, after, before),
            (0, new, proof, EMPTY_ROOT, after),
            (new, new, [], before, after),
        ):
            with pytest.raises(ProofRejected):
                check_consistency(*arguments)


def test_what_is_no_place_of_a_tree_has_no_proof() -> None:
    with pytest.raises(ValueError, match="no leaf 3"):
        inclusion_ranges(3, 3)
    with pytest.raises(ValueError, match="no proof"):
        consistency_ranges(4, 3)
