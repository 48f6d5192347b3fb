"""What is told of one operation in a sandbox: how it began, what it used, what it wrote, what it changed."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal
from uuid import UUID

from pydantic import Field

from codeagent.messages.conversation import Data
from codeagent.messages.envelope import Event
from codeagent.messages.personal import ARGV, CONTENT_DIGEST, CONTENT_NAME, CONTENT_REF, FILE_NAMES, Personal
from codeagent.messages.values import Digest, absent


class ResourceUse(Data):
    """`user_seconds`, `system_seconds` and `max_rss_bytes` are those of the processes that were waited for, as the
    kernel tells their parent. The control group counted the rest, processes that were killed included; it is all 0
    where there is no group."""

    user_seconds: float = 0.0
    system_seconds: float = 0.0
    max_rss_bytes: int = 0
    throttled_seconds: float = 0.0
    oom_kills: int = 0
    peak_processes: int = 0


class OutputTold(Data):
    """One output stream. `digest` is that of the kept bytes, as they were written; `excerpt` is their beginning and end
    as text, without control characters and what looks like a secret; `ref` names the artifact that holds all kept
    bytes, where they are more than the excerpt shows."""

    seen_bytes: int
    kept_bytes: int
    digest: Annotated[Digest, CONTENT_NAME]
    excerpt: Annotated[str, Personal("telling what a command did", "may hold what is in the repository")]
    ref: Annotated[Digest | None, CONTENT_REF] = Field(default=None, exclude_if=absent)


class ChangedFile(Data):
    path: str
    kind: Literal["added", "modified", "deleted", "mode"]


class FilesChanged(Data):
    """What differs between the checkpoints before and after. `count` is that of all, `files` are the first of them.
    `left_out`: what is new and in no checkpoint or patch, since the repository ignores it."""

    count: int
    files: Annotated[tuple[ChangedFile, ...], FILE_NAMES] = ()
    left_out: Annotated[tuple[str, ...] | None, FILE_NAMES] = Field(default=None, exclude_if=absent)


class EgressConnection(Data):
    """A connection that a command asked its proxy for. `host` is as the command named it, empty where it named none;
    `verdict` is `allowed`, or why it came to nothing or was cut off."""

    host: Annotated[str, Personal("telling what a command did", "hosts it asked for")]
    port: int
    verdict: str
    sent_bytes: int
    received_bytes: int


class Installed(Data):
    """What an installation came to. `key` is the digest of all that decides what it brings, `dependencies` that of the
    archive of what it brought, which may be `recalled` from an earlier one."""

    key: Digest
    dependencies: Digest
    size_bytes: int
    recalled: bool


class ExecStarted(Event):
    """What was about to be done in a sandbox, and under which conditions. It stands before `sandbox.exec.ended` on the
    operation's stream, in the same commit, and its time is when the operation began.

    `argv` is empty where no program runs, bounded, and without what looks like a secret; `argv_digest` is that of the
    whole. `limits` by name: bytes, seconds, numbers. `policy_digest` names the system call filters and the options of
    the sandbox program, `image` the root file system or image by its name, where it is not the usual one. `egress`: the
    hosts that the command could reach, as `name:port` or `*.name:port`; without it there was no network.
    """

    NAME: ClassVar[str] = "sandbox.exec.started"

    effect_id: UUID
    run_id: str
    attempt: int
    operation: str
    tool: str | None = None
    argv: Annotated[tuple[str, ...], ARGV] = ()
    argv_digest: Annotated[str | None, CONTENT_REF] = None
    env_names: tuple[str, ...] = ()
    input_digest: Annotated[str, CONTENT_DIGEST] = ""
    base: Annotated[str | None, CONTENT_REF] = None
    checkpoint: Annotated[str, CONTENT_DIGEST] = ""
    driver: str
    driver_version: str
    level: int
    policy_digest: str = ""
    image: str | None = None
    limits: dict[str, int | float]
    egress: tuple[str, ...] | None = Field(default=None, exclude_if=absent)
