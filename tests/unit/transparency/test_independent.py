"""Proofs and notes against another implementation: the Go checksum database's. CODEAGENT_TEST_GO=1 runs it, as `make
test-log` does; it needs Go and its module proxy. Everywhere else the RFC's own definitions are compared with."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from codeagent.transparency.checkpoints import Checkpoint
from codeagent.transparency.notes import SigningKey, encoded
from codeagent.transparency.tree import CompactRange
from tests.conftest import unavailable
from tests.unit.transparency.test_proofs import LEAVES, SIZES, consistency, inclusion

HERE = Path(__file__).parent / "independent"
PAIRS = [(old, new) for new in SIZES for old in range(1, new + 1)]


def root(size: int) -> str:
    tree = CompactRange()
    for leaf in LEAVES[:size]:
        tree.append(leaf)
    return encoded(tree.root())


def document() -> dict[str, object]:
    key = SigningKey("log.example/audit", bytes(32))
    tree = CompactRange()
    for leaf in LEAVES:
        tree.append(leaf)
    return {
        "Key": str(key.verifier),
        "Note": Checkpoint("log.example/audit", tree.size, tree.root()).signed([key]),
        "Records": [
            {
                "Size": size,
                "Index": index,
                "Root": root(size),
                "Leaf": encoded(LEAVES[index]),
                "Proof": [encoded(hashed) for hashed in inclusion(index, size)],
            }
            for size in SIZES
            for index in range(size)
        ],
        "Trees": [
            {
                "Old": old,
                "New": new,
                "OldRoot": root(old),
                "NewRoot": root(new),
                "Proof": [encoded(hashed) for hashed in consistency(old, new)],
            }
            for old, new in PAIRS
        ],
    }


@pytest.mark.skipif("CODEAGENT_TEST_GO" not in os.environ, reason="CODEAGENT_TEST_GO=1 asks for it")
def test_another_implementation_verifies_every_proof_and_note(tmp_path: Path) -> None:
    if shutil.which("go") is None:
        unavailable("Go, for the other implementation")
    folder = shutil.copytree(HERE, tmp_path / "independent")
    done = subprocess.run(
        ["go", "run", "."], input=json.dumps(document()), cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(sum(SIZES) + len(PAIRS))] * 2
