"""Fetches one commit, through a proxy that git's options name, and writes its tree as a plain .tar.gz.

Takes one JSON object: `url`, `ref`, `git` (options for every git command), `attributes`, `output`, and `host`: where it
is not empty, standard input holds a credential for it, in the words of git's credential helpers. Exits 0, or 3 with the
last words of git on standard error.
"""

from __future__ import annotations

import gzip
import json
import os
import stat
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

TREE = Path("/workspace")


def credential_options(host: str) -> tuple[list[str], list[int]]:
    """Git options that offer the credential of standard input to `host` alone, and the descriptor they read it from:
    memory that has no name, so that it is in no file, no environment and nobody's argument list."""
    if not host:
        return [], []
    memory = os.memfd_create("credential", os.MFD_CLOEXEC)
    os.write(memory, sys.stdin.buffer.read())
    helper = f'!f() {{ test "$1" = get && cat /proc/self/fd/{memory}; }}; f'
    return ["-c", f"credential.{host}.helper={helper}"], [memory]


def git(options: list[str], *words: str, keep: Sequence[int] = ()) -> None:
    answer = subprocess.run(
        ["git", *options, *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False, pass_fds=keep
    )
    if answer.returncode != 0:
        sys.stderr.buffer.write(answer.stderr[-2000:])
        sys.exit(3)


def check_out(order: dict[str, Any], options: list[str]) -> None:
    git(options, "init", "--quiet", "--template=")
    Path(os.environ["GIT_DIR"], "info").mkdir(exist_ok=True)
    Path(os.environ["GIT_DIR"], "info", "attributes").write_text(order["attributes"])
    fetch = ["fetch", "--quiet", "--depth=1", "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head"]
    offer, keep = credential_options(order["host"])
    reference = f"{order['ref']}:refs/codeagent/fetched"
    git([*options, *offer], *fetch, "--end-of-options", order["url"], reference, keep=keep)
    git(options, "read-tree", "--reset", "-u", "refs/codeagent/fetched")


def pack(output: gzip.GzipFile) -> None:
    """Sorted, without owners and times; links that lead outside are left out, as nothing may follow them."""
    with tarfile.open(fileobj=output, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        for folder, folders, files in os.walk(TREE):
            folders.sort()
            for name in sorted([*folders, *files]):
                add(tar, Path(folder, name))


def add(tar: tarfile.TarFile, path: Path) -> None:
    facts = path.lstat()
    header = tarfile.TarInfo(str(path.relative_to(TREE)))
    header.mode = 0o755 if facts.st_mode & 0o100 else 0o644
    if stat.S_ISREG(facts.st_mode):
        header.size = facts.st_size
        with path.open("rb") as file:
            tar.addfile(header, file)
    elif stat.S_ISLNK(facts.st_mode):
        header.type, header.linkname = tarfile.SYMTYPE, str(path.readlink())
        if inside(path.relative_to(TREE), header.linkname):
            tar.addfile(header)
    elif stat.S_ISDIR(facts.st_mode) and any(path.iterdir()):
        header.type = tarfile.DIRTYPE
        tar.addfile(header)


def inside(path: Path, target: str) -> bool:
    depth = len(path.parts) - 1
    for part in target.split("/"):
        depth += -1 if part == ".." else 0 if part in ("", ".") else 1
        if depth < 0:
            return False
    return not target.startswith("/")


def main() -> None:
    order = json.loads(sys.argv[1])
    check_out(order, order["git"])
    with Path(order["output"]).open("wb") as file, gzip.GzipFile("", "wb", 6, file, mtime=0) as output:
        pack(output)


if __name__ == "__main__":
    main()
