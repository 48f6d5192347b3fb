"""Patches made and applied in memory are the ones git makes and applies."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codeagent.sandboxes.patch_text import MemoryFile, apply_patch, make_patch
from codeagent.sandboxes.patches import validate_patch
from codeagent.sandboxes.protocol import Limits, SandboxFailure

contents = st.one_of(
    st.binary(max_size=200),
    st.lists(st.sampled_from([b"a\n", b"b\n", b"a\r\n", b"\n", b"--- a/x\n", b"\\ x\n", b"end"]), max_size=30).map(
        b"".join
    ),
)
files = st.dictionaries(
    st.sampled_from(["a", "b/c", "with space", "é", 'quo"te', "z.py"]),
    st.builds(MemoryFile, contents, st.booleans()),
    max_size=5,
)


@given(files, files)
def test_a_patch_applied_to_what_it_was_made_from_gives_what_it_was_made_for(
    before: dict[str, MemoryFile], after: dict[str, MemoryFile]
) -> None:
    patch = validate_patch(make_patch(before, after), Limits())
    assert apply_patch(before, patch.text) == after
    assert set(patch.files) == {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}


def test_a_patch_for_other_files_conflicts() -> None:
    one, two = {"f": MemoryFile(b"a\nb\n")}, {"f": MemoryFile(b"a\nc\n")}
    patch = make_patch(one, two)
    for files in ({}, {"f": MemoryFile(b"x\ny\n")}, {"f": MemoryFile(b"a\n")}):
        with pytest.raises(SandboxFailure) as caught:
            apply_patch(files, patch)
        assert caught.value.reason == "patch_conflict"


def write(folder: Path, files: dict[str, MemoryFile]) -> None:
    for path, file in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(file.data)
        (folder / path).chmod(0o755 if file.executable else 0o644)


def read(folder: Path) -> dict[str, MemoryFile]:
    return {
        str(path.relative_to(folder)): MemoryFile(path.read_bytes(), bool(path.stat().st_mode & 0o100))
        for path in folder.rglob("*")
        if path.is_file() and ".git" not in path.parts
    }


def git(folder: Path, *words: str, stdin: bytes = b"") -> bytes:
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
    return subprocess.run(
        ["git", *words], cwd=folder, env=environment, input=stdin, capture_output=True, check=True
    ).stdout


@settings(max_examples=25, deadline=None)
@given(before=files, after=files)
def test_git_applies_our_patches_and_we_apply_gits(
    tmp_path_factory: pytest.TempPathFactory, before: dict[str, MemoryFile], after: dict[str, MemoryFile]
) -> None:
    theirs = tmp_path_factory.mktemp("theirs")
    write(theirs, before)
    patch = make_patch(before, after)
    if patch:
        git(theirs, "apply", "--whitespace=nowarn", "-", stdin=patch)
    assert read(theirs) == after

    repository = tmp_path_factory.mktemp("repository")
    git(repository, "init", "-q")
    write(repository, before)
    git(repository, "add", "-A")
    tree = git(repository, "write-tree").decode().strip()
    for path in before:
        (repository / path).unlink()
    write(repository, after)
    git(repository, "add", "-A")
    made = git(repository, "diff", "--cached", "--binary", "--full-index", "--no-renames", tree)
    assert apply_patch(before, validate_patch(made, Limits()).text) == after


def test_a_delta_is_applied() -> None:
    """Git writes one where little of a large binary file changed."""
    base = os.urandom(70_000)
    before, after = (
        {"f": MemoryFile(b"\0" + base)},
        {"f": MemoryFile(b"\0" + base[:66_000] + b"changed" + base[66_000:])},
    )
    made = gits_patch(before, after)
    assert b"\ndelta " in made
    assert apply_patch(before, made) == after


def gits_patch(before: dict[str, MemoryFile], after: dict[str, MemoryFile]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        git(Path(folder), "init", "-q")
        write(Path(folder), before)
        git(Path(folder), "add", "-A")
        write(Path(folder), after)
        return git(Path(folder), "diff", "--binary", "--full-index")
