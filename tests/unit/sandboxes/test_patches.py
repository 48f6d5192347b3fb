"""Patches are read as hostile bytes: content cannot pass for structure, and structure names only acceptable files."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codeagent.sandboxes.patch_text import MemoryFile, make_patch
from codeagent.sandboxes.patches import validate_patch
from codeagent.sandboxes.protocol import Limits, SandboxFailure

LIMITS = Limits()
ZERO, ONE = b"0" * 40, b"1" * 40


def text_patch(path: bytes = b"f", *, hunk: bytes = b"@@ -1 +1 @@\n-a\n+b\n", header: bytes = b"") -> bytes:
    tab = b"\t" if b" " in path else b""
    return (
        b"diff --git a/%b b/%b\n%bindex %b..%b 100644\n--- a/%b%b\n+++ b/%b%b\n%b"
        % (path, path, header, ZERO, ONE, path, tab, path, tab, hunk)
    )  # fmt: skip


def created(path: bytes, mode: bytes = b"100644") -> bytes:
    return b"diff --git a/%b b/%b\nnew file mode %b\nindex %b..%b\n" % (path, path, mode, ZERO, ONE)


def refusal(patch: bytes, limits: Limits = LIMITS) -> str:
    with pytest.raises(SandboxFailure) as caught:
        validate_patch(patch, limits)
    assert caught.value.retryable is False
    return caught.value.reason


def test_an_empty_patch_touches_nothing() -> None:
    assert validate_patch(b"", LIMITS).files == ()


@pytest.mark.parametrize(
    ("patch", "files"),
    [
        (text_patch(), ("f",)),
        (text_patch(b"a/b c.py"), ("a/b c.py",)),
        (text_patch(b"x b/x"), ("x b/x",)),
        (created(b"new") + text_patch(b"other"), ("new", "other")),
        (b"diff --git a/m b/m\nold mode 100644\nnew mode 100755\n", ("m",)),
        (b"diff --git a/l b/l\ndeleted file mode 120000\nindex %b..%b\n--- a/l\n+++ /dev/null\n@@ -1 +0,0 @@\n-t\n"
         b"\\ No newline at end of file\n" % (ONE, ZERO), ("l",)),
        (text_patch(hunk=b"@@ -1 +1 @@ def f():\n-a\n\\ No newline at end of file\n+b\n\\ No newline at end of file\n"),
         ("f",)),
        (b'diff --git "a/\\303\\251\\"" "b/\\303\\251\\""\nnew file mode 100755\nindex %b..%b\n' % (ZERO, ONE), ('é"',)),
        (make_patch({"b": MemoryFile(b"\0\1")}, {"b": MemoryFile(b"\0\2" * 40)}), ("b",)),
    ],
)  # fmt: skip
def test_what_git_writes_is_accepted(patch: bytes, files: tuple[str, ...]) -> None:
    assert validate_patch(patch, LIMITS).files == files


def test_a_link_that_becomes_a_file_is_named_once() -> None:
    gone = b"diff --git a/l b/l\ndeleted file mode 120000\nindex %b..%b\n" % (ONE, ZERO)
    assert validate_patch(gone + created(b"l"), LIMITS).files == ("l",)
    assert refusal(created(b"l") + created(b"l")) == "patch_refused"


def test_content_that_looks_like_a_header_is_content() -> None:
    hunk = (
        b"@@ -1,2 +1,4 @@\n context\n--- a/f\n+++ b/../../etc/passwd\n+diff --git a/etc/shadow b/etc/shadow\n"
        b"+new file mode 120000\n"
    )
    assert validate_patch(text_patch(hunk=hunk), LIMITS).files == ("f",)


@pytest.mark.parametrize(
    "path",
    [b"../x", b"a/../../x", b"/etc/passwd", b"a//b", b"./a", b".git/config", b"a/.GIT/hooks/x", b".git./x", b".git /x",
     b"git~1/x", b"GIT~2", b".git::$INDEX_ALLOCATION/x", b"a\\.git\\config", b"a\x1bb", b"a\x7fb", b"a\xff",
     "a\u202eb".encode(), ".g\u200dit/x".encode(), "\uff0egit/x".encode(), b"a\rb", b""],
)  # fmt: skip
def test_unacceptable_paths_are_refused(path: bytes) -> None:
    assert refusal(created(path)) == "patch_refused"
    quoted = b'"' + b"".join(b"\\%03o" % byte for byte in b"a/" + path) + b'"'
    other = b'"' + b"".join(b"\\%03o" % byte for byte in b"b/" + path) + b'"'
    header = b"diff --git %b %b\nnew file mode 100644\nindex %b..%b\n" % (quoted, other, ZERO, ONE)
    assert refusal(header) == "patch_refused"


@pytest.mark.parametrize("mode", [b"120000", b"160000", b"040000", b"100777", b"104755", b"", b"100644x"])
def test_only_regular_files_can_be_made(mode: bytes) -> None:
    assert refusal(created(b"x", mode)) == "patch_refused"
    assert refusal(b"diff --git a/x b/x\nold mode 100644\nnew mode %b\n" % mode) == "patch_refused"
    assert refusal(text_patch().replace(b" 100644", b" " + mode if mode else b" 0")) == "patch_refused"


@pytest.mark.parametrize(
    "patch",
    [
        b"junk\n",
        b"From 0123456789\nSubject: mail\n" + text_patch(),
        text_patch() + b"\n",
        text_patch()[:-1],
        text_patch(hunk=b"@@ -1,2 +1 @@\n-a\n+b\n"),
        text_patch(hunk=b"@@ -1 +1 @@\n-a\n+b\n+c\n"),
        text_patch(hunk=b"@@ -1 +1 @@\n-a\n?b\n"),
        text_patch(hunk=b"@@ -1,99999999999 +1 @@\n-a\n+b\n"),
        text_patch(hunk=b"@@ -1 +1 @@\n-a\n\\ something else\n+b\n"),
        text_patch(hunk=b""),
        text_patch().replace(b"+++ b/f", b"+++ b/g"),
        text_patch().replace(b"--- a/f", b"--- /dev/null"),
        text_patch().replace(b"b/f\nindex", b"b/g\nindex"),
        b"diff --git a/f b/f\n",
        b"diff --git a/f b/f\nindex %b..%b 100644\n" % (ZERO, ONE),
        b"diff --git a/f b/g\nsimilarity index 100%\nrename from f\nrename to g\n",
        b"diff --git a/f b/f\nindex 0123abc..4567def 100644\n--- a/f\n+++ b/f\n@@ -1 +1 @@\n-a\n+b\n",
        b"diff --git a/f b/f\nindex %b..%b 100644\nBinary files a/f and b/f differ\n" % (ZERO, ONE),
        b"diff --git a/f b/f\nindex %b..%b 100644\nGIT binary patch\nliteral 3\nZtooshort\n\n" % (ZERO, ONE),
        b"diff --git a/f b/f\nindex %b..%b 100644\nGIT binary patch\ngarbage\n\n" % (ZERO, ONE),
        b'diff --git "a/f" b/f\nold mode 100644\nnew mode 100755\n',
        b'diff --git "a/\\q" "b/\\q"\nold mode 100644\nnew mode 100755\n',
        b'diff --git "a/\\777" "b/\\777"\nold mode 100644\nnew mode 100755\n',
    ],
)
def test_what_git_would_not_write_is_refused(patch: bytes) -> None:
    assert refusal(patch) == "patch_refused"


def test_size_files_and_declared_sizes_are_limited() -> None:
    limits = replace(LIMITS, patch_bytes=1000, patch_files=2)
    assert refusal(text_patch(hunk=b"@@ -1 +1 @@\n-a\n+" + b"b" * 1000 + b"\n"), limits) == "patch_too_large"
    assert refusal(
        b"".join(b"diff --git a/%d b/%d\nold mode 100644\nnew mode 100755\n" % (i, i) for i in range(3)), limits
    ) == ("patch_too_large")
    bomb = b"diff --git a/b b/b\nindex %b..%b 100644\nGIT binary patch\nliteral 536870912\nHcmV?d00001\n\n" % (
        ZERO,
        ONE,
    )
    assert refusal(bomb) == "patch_too_large"


@given(st.binary(max_size=300))
def test_any_bytes_are_either_a_patch_or_a_refusal(data: bytes) -> None:
    try:
        validate_patch(data, LIMITS)
    except SandboxFailure as failure:
        assert failure.reason in ("patch_refused", "patch_too_large")


@given(st.data())
def test_damaging_a_patch_never_breaks_the_reader(data: st.DataObject) -> None:
    patch = (
        text_patch()
        + created(b"new")
        + text_patch(b"with space")
        + text_patch(b"z", hunk=b"@@ -1,3 +1,3 @@\n x\n-a\n+b\n y\n")
    )
    position = data.draw(st.integers(0, len(patch) - 1))
    length = data.draw(st.integers(0, 20))
    damaged = patch[:position] + data.draw(st.binary(max_size=10)) + patch[position + length :]
    try:
        files = validate_patch(damaged, LIMITS).files
    except SandboxFailure as failure:
        assert failure.reason == "patch_refused"
    else:
        assert not any(path.startswith("/") or ".." in path.split("/") for path in files)


@given(
    st.lists(
        st.sampled_from([b"diff --git a/x b/x", b"+++ b/y", b"--- a/y", b"@@ -1 +1 @@", b"text", b""]), max_size=12
    )
)
def test_added_lines_never_name_a_file(lines: list[bytes]) -> None:
    hunk = b"@@ -0,0 +1,%d @@\n" % len(lines) + b"".join(b"+" + line + b"\n" for line in lines)
    patch = text_patch(hunk=hunk if lines else b"@@ -1 +1 @@\n-a\n+b\n")
    assert validate_patch(patch, LIMITS).files == ("f",)
