"""What is told of one operation in a sandbox: how it began, what it used, what it wrote, what it changed."""

from __future__ import annotations

from typing import ClassVar, Literal
from uuid import UUID

from pydantic import Field

from codeagent.messages.conversation import Data
from codeagent.messages.envelope import Event
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
    digest: Digest
    excerpt: str
    ref: Digest | None = Field(default=None, exclude_if=absent)


class ChangedFile(Data):
    path: str
    kind: Literal["added", "modified", "deleted", "mode"]


class FilesChanged(Data):
    """What differs between the checkpoints before and after. `count` is that of all, `files` are the first of them.
    `left_out`: what is new and in no checkpoint or patch, since the repository ignores it."""

    count: int
    files: tuple[ChangedFile, ...] = ()
    left_out: tuple[str, ...] | None = Field(default=None, exclude_if=absent)


class EgressConnection(Data):
    """A connection that a command asked its proxy for. `host` is as the command named it, empty where it named none;
    `verdict` is `allowed`, or why it came to nothing or was cut off."""

    host: str
    port: int
    verdict: str
    sent_bytes: int
    received_bytes: int


class ExecStarted(Event):
    """What was about to be done in a sandbox, and under which conditions. It stands before `sandbox.exec.ended` on the
    operation's stream, in the same commit, and its time is when the operation began.

    `argv` is empty where no program runs, bounded, and without what looks like a secret; `argv_digest` is that of the
    whole. `limits` by name: bytes, seconds, numbers. `policy_digest` names the system call filters and the options of
    the sandbox program, `image` the root file system, where it is not the machine's own. `egress`: the hosts that the
    command could reach, as `name:port` or `*.name:port`; without it there was no network.
    """

    NAME: ClassVar[str] = "sandbox.exec.started"

    effect_id: UUID
    run_id: str
    attempt: int
    operation: str
    tool: str | None = None
    argv: tuple[str, ...] = ()
    argv_digest: str | None = None
    env_names: tuple[str, ...] = ()
    input_digest: str = ""
    base: str | None = None
    checkpoint: str = ""
    driver: str
    driver_version: str
    level: int
    policy_digest: str = ""
    image: str | None = None
    limits: dict[str, int | float]
    egress: tuple[str, ...] | None = Field(default=None, exclude_if=absent)
