"""The git commands that remember a workspace's base, restore a patch and tell what changed. They only ever run inside.

The repository lies outside the workspace and belongs to the driver. A `.git` the workspace may hold is never read, and
neither configuration nor attributes found in the workspace can start a program or change a byte on the way.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

from codeagent.sandboxes import outcome
from codeagent.sandboxes.box import WORKSPACE
from codeagent.sandboxes.outcome import Observed
from codeagent.sandboxes.protocol import Limits, Reason, SandboxFailure

INSIDE = "/base.git"

# Content is stored and restored as it is: no line ending, encoding or keyword conversion, no filter, no driver.
NEUTRAL_ATTRIBUTES = "* -text !eol !crlf -ident !filter !working-tree-encoding !diff !merge !whitespace\n"

ENVIRONMENT = {
    "GIT_DIR": INSIDE,
    "GIT_WORK_TREE": WORKSPACE,
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_SYSTEM": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_LITERAL_PATHSPECS": "1",
    "LC_ALL": "C",
}

OPTIONS = (
    *("-c", "core.fsmonitor=false"),
    *("-c", "core.untrackedCache=false"),
    *("-c", "core.hooksPath=/dev/null"),
    *("-c", "core.attributesFile=/dev/null"),
    *("-c", "core.excludesFile=/dev/null"),
    *("-c", "core.autocrlf=false"),
    *("-c", "core.safecrlf=false"),
    *("-c", "core.fileMode=true"),
    *("-c", "core.symlinks=true"),
    *("-c", "core.quotePath=true"),
    *("-c", "submodule.recurse=false"),
    *("-c", "safe.bareRepository=explicit"),
    *("-c", "gc.auto=0"),
    *("-c", "advice.addEmbeddedRepo=false"),
)
_DIFF_OPTIONS = (
    *("--cached", "--binary", "--full-index", "--no-renames", "--no-ext-diff", "--no-textconv"),
    # A nested repository must show, to be refused: its files would be missing. Nothing in it is looked at.
    *("--ignore-submodules=dirty", "--no-color", "--src-prefix=a/", "--dst-prefix=b/"),
)
_GIT = " ".join(("git", *OPTIONS))

LEFT_OUT_OF_DIFFS = ("__pycache__/", "*.py[co]", ".pytest_cache/", ".mypy_cache/", ".ruff_cache/", ".hypothesis/")
"""Leavings of tools, as lines of a git exclude file. They apply to new files only."""

_LEAST_SECONDS = 30.0
_MOST_LEFT_OUT = 1000
"""Names that are told. More of them are a build's, and say no more."""


def left_out(errors: bytes) -> tuple[str, ...]:
    """What `diff_script` told on standard error as not carried, without the leavings of tools. Names that are not UTF-8
    are shown with escapes."""
    names = errors.partition(b"\0")[2].split(b"\0")[:-1]
    told = (name.decode("utf-8", "backslashreplace") for name in names)
    return tuple(name for name in told if not _is_leaving(name))


def _is_leaving(name: str) -> bool:
    last = name.rstrip("/").rpartition("/")[2] + ("/" if name.endswith("/") else "")
    return any(fnmatchcase(last, pattern) for pattern in LEFT_OUT_OF_DIFFS)


def lay_out(directory: Path, owner: int, excludes: Sequence[str]) -> None:
    """Makes an empty bare repository of plain files for `owner`: no git runs on the host. Blocking."""
    files = {
        "HEAD": "ref: refs/heads/base\n",
        "config": "[core]\n\trepositoryformatversion = 0\n\tbare = true\n",
        "info/attributes": NEUTRAL_ATTRIBUTES,
        "info/exclude": "".join(f"{line}\n" for line in excludes),
    }
    for name in ("info", "objects", "refs"):
        (directory / name).mkdir(mode=0o755)
    for name, text in files.items():
        (directory / name).write_text(text, encoding="utf-8")
    for path in directory.rglob("*"):
        os.chown(path, owner, owner)


def own_limits(limits: Limits) -> Limits:
    """Of making a workspace and of telling its changes: a command's time may be shorter than a container's start."""
    return replace(limits, wall_seconds=max(_LEAST_SECONDS, limits.wall_seconds))


def base_script(*, with_patch: bool) -> tuple[str, ...]:
    """Records every file, ignored ones too, prints the tree's name, then applies the patch given as input."""
    steps = f"{_GIT} add --all --force -- . && {_GIT} write-tree"
    if with_patch:
        steps += f" && {_GIT} apply --whitespace=nowarn -"
    return ("/bin/sh", "-c", steps)


def diff_script(tree: str) -> tuple[str, ...]:
    """Prints the difference between the workspace and `tree`, and tells on standard error, after a NUL, what is new and
    not in it: names that end in NUL. Repository and workspace may both be read-only."""
    # The base's index knows which files have not been touched since. Its time must be kept for that to be safe.
    steps = (
        'mkdir "$GIT_OBJECT_DIRECTORY" && cp -p "$GIT_DIR/index" "$GIT_INDEX_FILE" && '
        f"{_GIT} add --all -- . && {_GIT} diff {' '.join(_DIFF_OPTIONS)} {tree} -- && "
        # A directory of which nothing is carried is told as one name, however much is in it.
        f"printf '\\0' >&2 && {_GIT} ls-files --others --directory --no-empty-directory -z "
        f"| head -z -n {_MOST_LEFT_OUT} >&2"
    )
    return ("/bin/sh", "-c", steps)


DIFF_ENVIRONMENT = {
    **ENVIRONMENT,
    "GIT_INDEX_FILE": "/tmp/index",  # noqa: S108  # the sandbox's own
    "GIT_OBJECT_DIRECTORY": "/tmp/objects",  # noqa: S108
    "GIT_ALTERNATE_OBJECT_DIRECTORIES": f"{INSIDE}/objects",
}


def tree_of(seen: Observed, patch: bytes) -> str:
    """The name of the base tree, or the failure that kept the workspace from being made."""
    reason = outcome.reason_for(seen)
    if reason is Reason.OK:
        return seen.stdout.decode("ascii").strip()
    if seen.disk_full or seen.inodes_used_up or b"No space left" in seen.stderr:
        raise SandboxFailure("the workspace is full", reason="workspace_full", retryable=False)
    if reason is Reason.EXIT and patch and seen.stdout:
        raise SandboxFailure("the patch does not apply to the archive", reason="patch_conflict", retryable=False)
    raise SandboxFailure(f"the workspace cannot be made ({reason}): {outcome.last_words(seen.stderr)}")


def raise_unless_diffed(seen: Observed) -> None:
    """Raises `SandboxFailure` where a diff script did not come to its end."""
    reason = outcome.reason_for(seen)
    if reason is Reason.OK:
        return
    if reason is Reason.CANCELED:
        raise SandboxFailure("the workspace was closed", reason="closed", retryable=False)
    if reason in (Reason.OUTPUT_LIMIT, Reason.OOM) or b"No space left" in seen.stderr:
        raise SandboxFailure("the changes are larger than a patch may be", reason="patch_too_large", retryable=False)
    words = outcome.last_words(seen.stderr)
    if reason is Reason.EXIT:
        # For example a repository nested in the workspace: its files would be missing from the patch.
        raise SandboxFailure(f"the changes cannot be told: {words}", reason="patch_refused", retryable=False)
    raise SandboxFailure(f"the changes cannot be told ({reason}): {words}", retryable=reason is not Reason.TIMEOUT)
