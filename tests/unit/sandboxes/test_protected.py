"""A patch without its changes to protected files: which those are, and that the rest stays as it was."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from codeagent.messages.verification import USUALLY_PROTECTED, Verification
from codeagent.sandboxes.patch_text import MemoryFile, apply_patch, make_patch
from codeagent.sandboxes.protected import covers, without_protected
from codeagent.sandboxes.protocol import Limits, SandboxFailure

LIMITS = Limits()


@pytest.mark.parametrize(
    ("pattern", "covered", "left"),
    [
        ("conftest.py", ["conftest.py", "a/b/conftest.py"], ["conftest.pyc", "a/conftest.py.txt", "Conftest.py"]),
        ("tests/", ["tests/a", "x/tests/b/c"], ["tests", "mytests/a"]),
        ("tests", ["tests", "tests/a", "x/tests/b"], ["tests.py"]),
        ("/tests", ["tests/a"], ["x/tests/a"]),
        ("a/b", ["a/b", "a/b/c"], ["x/a/b", "a"]),
        ("a/*/c", ["a/b/c", "a/x/c/d"], ["a/c", "a/b/b/c"]),
        ("a/**/c", ["a/c", "a/b/c", "a/b/b/c/d"], ["b/c", "c"]),
        ("**/b/**/c", ["b/c/b/x", "a/b/x/c"], ["c/b", "b/x"]),
        ("**/test_*.py", ["test_a.py", "a/b/test_b.py"], ["test_a.txt"]),
        ("*.pth", ["x.pth", "a/y.pth"], ["pth"]),
        ("[ab].py", ["a.py", "d/b.py"], ["c.py", "[ab].py"]),
    ],
)
def test_what_a_pattern_means(pattern: str, covered: list[str], left: list[str]) -> None:
    assert [path for path in covered + left if covers(pattern, path)] == covered


@pytest.mark.parametrize(
    "path",
    [
        "a/conftest.py",
        "pytest.so",
        "a/pytest/__init__.py",
        "__pycache__/conftest.cpython-311.pyc",
        "a/x.egg-info/PKG-INFO",
    ],
)
def test_what_is_protected_where_nothing_is_said(path: str) -> None:
    assert any(covers(pattern, path) for pattern in USUALLY_PROTECTED)


@pytest.mark.parametrize("path", ["shop.py", "setup.py", "tests/test_shop.py", "pytest_helper.py", "docs/setup.cfg.md"])
def test_code_and_tests_are_not(path: str) -> None:
    assert not any(covers(pattern, path) for pattern in USUALLY_PROTECTED)


def test_a_pattern_made_to_take_long_does_not() -> None:
    began = time.process_time()
    assert not covers("**/" * 60 + "*a" * 90 + "b", "/".join(["a" * 250] * 15))
    assert time.process_time() - began < 1


@pytest.mark.parametrize("pattern", ["", "/", "..", "a/../b", "a//b", "./a", "a\nb", "x" * 201])
def test_a_pattern_that_names_nothing_is_refused(pattern: str) -> None:
    with pytest.raises(ValidationError):
        Verification(command="make", protected=(pattern,))


NAMES = st.sampled_from(["a", "b", "tests/a", "tests/b", "c/conftest.py", "conftest.py"])
TREES = st.dictionaries(NAMES, st.binary(max_size=20).map(MemoryFile))


@given(TREES, TREES)
def test_protected_files_are_as_before_and_all_others_as_the_patch_has_them(
    before: dict[str, MemoryFile], after: dict[str, MemoryFile]
) -> None:
    patterns = ("tests/", "conftest.py")
    patch, dropped = without_protected(make_patch(before, after), patterns, LIMITS)

    def is_protected(name: str) -> bool:
        return name.startswith("tests/") or name.endswith("conftest.py")

    expected = {name: file for name, file in after.items() if not is_protected(name)}
    expected |= {name: file for name, file in before.items() if is_protected(name)}
    assert apply_patch(before, patch) == expected
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    assert set(dropped) == {name for name in changed if is_protected(name)}


def test_content_that_looks_like_a_file_is_content() -> None:
    text = b"diff --git a/conftest.py b/conftest.py\ndeleted file mode 100644\n"
    patch = make_patch({}, {"a": MemoryFile(text)})
    assert without_protected(patch, ("conftest.py",), LIMITS) == (patch, ())


def test_what_is_no_patch_is_refused() -> None:
    with pytest.raises(SandboxFailure, match="line where a file should begin"):
        without_protected(b"x\n", (), LIMITS)
