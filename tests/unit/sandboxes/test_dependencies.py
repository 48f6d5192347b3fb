"""What is kept of an installation: links that mean the same wherever it is laid out, and lead no further."""

from __future__ import annotations

import os
import posixpath
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codeagent.sandboxes import archives
from codeagent.sandboxes.dependencies import bounds, kept_link, pack
from codeagent.sandboxes.protocol import Limits

LIMITS = Limits(dependencies_bytes=1 << 20)
PARTS = st.lists(st.sampled_from(["a", "bin", "lib"]), min_size=1, max_size=4).map(tuple)
TARGETS = st.lists(st.sampled_from(["", ".", "..", "a", "usr", "etc", "dependencies", "bin"]), min_size=1, max_size=6)


@pytest.mark.parametrize(
    ("parts", "target", "kept"),
    [
        (("bin", "python"), "python3", "python3"),
        (("bin", "python3"), "/usr/bin/python3", "/usr/bin/python3"),
        (("bin", "python3"), "/opt/python/bin/python3", "/opt/python/bin/python3"),
        (("node_modules", ".bin", "tsc"), "../typescript/bin/tsc", "../typescript/bin/tsc"),
        (("bin", "tool"), "/dependencies/lib/tool", "../lib/tool"),
        (("x",), "/dependencies/../etc/passwd", None),
        (("x",), "../etc/passwd", None),
        (("x",), "/usr/../etc/passwd", None),
        (("x",), "/etc/passwd", None),
        (("x",), "/proc/self/environ", None),
        (("x",), "/workspace/file", None),
        (("x",), "/usr", None),
        (("x",), "/", None),
        (("x",), "", None),
    ],
)
def test_links_stay_inside_or_name_a_program(parts: tuple[str, ...], target: str, kept: str | None) -> None:
    assert kept_link(parts, target) == kept


@given(PARTS, TARGETS.map("/".join))
def test_no_link_reads_as_leading_elsewhere(parts: tuple[str, ...], target: str) -> None:
    kept = kept_link(parts, target)
    if kept is None:
        return
    path = posixpath.normpath(posixpath.join("/dependencies", *parts[:-1], kept))
    path = f"/{path.lstrip('/')}"  # two slashes at the beginning mean what one does
    assert path == "/dependencies" or path.split("/")[1] in {"dependencies", "usr", "bin", "opt", "lib"}
    assert kept_link(parts, kept) == kept, "what was packed can be unpacked"


def test_an_installation_is_the_same_after_it_was_packed_and_laid_out(tmp_path: Path) -> None:
    root, laid_out = tmp_path / "root", tmp_path / "laid-out"
    (root / "bin").mkdir(parents=True)
    laid_out.mkdir()
    (root / "bin/tool").write_bytes(b"#!/bin/sh\n")
    (root / "bin/tool").chmod(0o4710)
    (root / "bin/python3").symlink_to("/usr/bin/python3")
    (root / "current").symlink_to("/dependencies/bin")
    pack(root, tmp_path / "packed.tar.gz", LIMITS)
    unpacker = archives.Unpacker(laid_out, os.geteuid(), kept_link)
    unpacker.unpack(tmp_path / "packed.tar.gz", bounds(LIMITS), threading.Event())
    assert sorted(str(path.relative_to(laid_out)) for path in laid_out.rglob("*")) == [
        "bin",
        "bin/python3",
        "bin/tool",
        "current",
    ]
    assert (laid_out / "bin/tool").stat().st_mode & 0o7777 == 0o755
    assert (str((laid_out / "current").readlink()), str((laid_out / "bin/python3").readlink())) == (
        "bin",
        "/usr/bin/python3",
    )
