"""Puts a sandbox operation into words: how it began, how it ended, what it wrote and what it changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256

from codeagent import clock
from codeagent.errors import CodeAgentError
from codeagent.messages.commands import ExecuteOperation
from codeagent.messages.events import ExecEnded
from codeagent.messages.executions import (
    ChangedFile,
    EgressConnection,
    ExecStarted,
    FilesChanged,
    Installed,
    OutputTold,
    ResourceUse,
)
from codeagent.messages.guidance import Guidance
from codeagent.messages.ids import exec_stream
from codeagent.messages.results import SandboxResult
from codeagent.messages.values import BASE_CHECKPOINT, Artifact, CallTool, Outcome
from codeagent.sandboxes.changes import FileChange
from codeagent.sandboxes.plain_text import plain
from codeagent.sandboxes.protocol import DEFAULT_IMAGE, ExecRecord, Limits, ProbeReport, SandboxFailure
from codeagent.telemetry import metrics
from codeagent.telemetry.redaction import without_secrets
from codeagent.workers.ended import Began, Ended
from codeagent.workers.toolbox import ToolOutcome
from codeagent.workers.use import use_of

ARGV_CHARACTERS = 4_000
"""Of a command's words together, as the log has them."""
EXCERPT_CHARACTERS = 2_000
MOST_FILES = 100
_LONGEST_OPTION = 100
_LOOKED_AT = 4
"""So many times an excerpt is looked at for secrets, and then cut: none is cut in two and missed for it."""


def began(
    command: ExecuteOperation,
    attempt: int,
    report: ProbeReport,
    limits: Limits,
    argv: Sequence[str] = (),
    input_digest: str = "",
    egress: tuple[str, ...] = (),
) -> Began:
    """What is about to be done, as of now. `egress` is what the command may reach."""
    fact = ExecStarted(
        effect_id=command.effect_id,
        run_id=command.run_id,
        attempt=attempt,
        operation=command.operation.kind,
        tool=tool_name(command),
        argv=shown_argv(argv),
        argv_digest=argv_digest(argv) if argv else None,
        input_digest=input_digest,
        base=command.base,
        checkpoint=command.checkpoint,
        driver=report.driver,
        driver_version=report.version,
        level=int(report.level),
        policy_digest=report.images.get(command.image or DEFAULT_IMAGE, report.policy_digest),
        image=command.image,
        limits=asdict(limits),
        egress=egress or None,
    )
    return Began(fact, clock.now(), command.run_id)


def tool_name(command: ExecuteOperation) -> str | None:
    return command.operation.call.name if isinstance(command.operation, CallTool) else None


def argv_digest(argv: Sequence[str]) -> str:
    """`sha256:` over the words, each followed by a NUL, as the kernel keeps them."""
    seen = sha256()
    for word in argv:
        seen.update(word.encode("utf-8", "surrogatepass") + b"\0")
    return f"sha256:{seen.hexdigest()}"


def shown_argv(argv: Sequence[str]) -> tuple[str, ...]:
    """Words for the log: printable, bounded, without what looks like a secret."""
    left, option = ARGV_CHARACTERS, ""
    shown: list[str] = []
    for word in argv:
        if left <= 0:
            shown.append("…")
            break
        text = excerpt(word.encode("utf-8", "replace"), left)
        # What the word before says of this one, as in `--password x`.
        told = without_secrets(f"{option} {text}") if option else text
        shown.append(told.removeprefix(f"{option} "))
        left -= len(shown[-1])
        option = text if text.startswith("-") and len(text) < _LONGEST_OPTION else ""
    return tuple(shown)


def excerpt(output: bytes, most: int = EXCERPT_CHARACTERS) -> str:
    """The beginning and the end of an output as text."""
    window = most * _LOOKED_AT
    if len(output) <= 2 * window:
        return _cut(without_secrets(plain(output)), most)
    head, tail = (without_secrets(plain(piece)) for piece in (output[:window], output[-window:]))
    return _joined(head, tail, most)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else _joined(text, text, most)


def _joined(head: str, tail: str, most: int) -> str:
    return f"{head[: most // 2]}\n[…]\n{tail[-(most // 2) :]}"


def output_told(kept: bytes, seen_bytes: int) -> OutputTold:
    digest = f"sha256:{sha256(kept).hexdigest()}"
    shown = excerpt(kept)
    return OutputTold(
        seen_bytes=seen_bytes,
        kept_bytes=len(kept),
        digest=digest,
        excerpt=shown,
        ref=digest if kept and shown.encode() != kept else None,
    )


def resources(record: ExecRecord) -> ResourceUse:
    return ResourceUse(
        user_seconds=record.rusage.user_seconds,
        system_seconds=record.rusage.system_seconds,
        max_rss_bytes=record.rusage.max_rss_bytes,
        throttled_seconds=record.throttled_seconds,
        oom_kills=record.oom_kills,
        peak_processes=record.peak_processes,
    )


def connections(record: ExecRecord) -> tuple[EgressConnection, ...] | None:
    return tuple(EgressConnection(**asdict(connection)) for connection in record.egress) or None


def files_changed(found: Sequence[FileChange], left_out: Sequence[str]) -> FilesChanged:
    return FilesChanged(
        count=len(found),
        files=tuple(ChangedFile(path=change.path, kind=change.kind) for change in found[:MOST_FILES]),
        left_out=tuple(left_out[:MOST_FILES]) or None,
    )


@dataclass(frozen=True, slots=True)
class Told:
    """Which operation an end is told of, by whom, and how long all of it took."""

    command: ExecuteOperation
    attempt: int
    driver: str
    level: int
    duration_seconds: float


@dataclass(frozen=True, slots=True)
class Done:
    """What an operation brought, before it is put into words."""

    tool: ToolOutcome | None = None
    base: str | None = None
    checkpoint: str = BASE_CHECKPOINT
    patch: Artifact | None = None
    input_digest: str = ""
    stdout: OutputTold | None = None
    stderr: OutputTold | None = None
    changed: FilesChanged | None = None
    ended_by: str | None = None
    restored: tuple[str, ...] | None = None
    guidance: Guidance | None = None
    installed: Installed | None = None

    @property
    def reason(self) -> str:
        return "ok" if self.tool is None else self.tool.reason


def done(told: Told, done: Done, limits: Limits) -> Ended:
    """The end of an operation that was carried out within `limits`, whatever came of it."""
    command, tool = told.command, done.tool
    record = tool.record if tool is not None else None
    used = None if record is None else use_of(record, limits.memory_bytes)
    metrics.SANDBOX_EXEC.labels(told.driver, done.reason).observe(told.duration_seconds)
    output_ref = f"sha256:{sha256(tool.whole).hexdigest()}" if tool is not None and tool.whole is not None else None
    answer = SandboxResult(
        effect_id=command.effect_id,
        run_id=command.run_id,
        attempt=told.attempt,
        outcome=Outcome.DONE,
        output=tool.text if tool is not None else "",
        output_ref=output_ref,
        reason=done.reason,
        exit_code=tool.exit_code if tool is not None else None,
        base=done.base,
        checkpoint=done.checkpoint,
        patch=done.patch,
        duration_seconds=told.duration_seconds,
        used=used,
        restored=done.restored,
        guidance=done.guidance,
        dependencies=done.installed.dependencies if done.installed is not None else None,
    )
    fact = _fact(told, done)
    if record is not None:
        fact = fact.model_copy(update=_measured(record, limits))
    return Ended(exec_stream(command.effect_id), fact, answer, done.ended_by or command.run_id)


def _fact(told: Told, done: Done) -> ExecEnded:
    command, tool = told.command, done.tool
    return ExecEnded(
        effect_id=command.effect_id,
        run_id=command.run_id,
        attempt=told.attempt,
        outcome=Outcome.DONE,
        operation=command.operation.kind,
        tool=tool_name(command),
        input_digest=done.input_digest,
        reason=done.reason,
        exit_code=tool.exit_code if tool is not None else None,
        driver=told.driver,
        level=told.level,
        output_digest=f"sha256:{sha256((tool.text if tool else '').encode()).hexdigest()}",
        checkpoint=done.checkpoint,
        duration_seconds=told.duration_seconds,
        stdout=done.stdout,
        stderr=done.stderr,
        changed=done.changed,
        installed=done.installed,
    )


def _measured(record: ExecRecord, limits: Limits) -> dict[str, object]:
    return {
        "memory_limit_bytes": limits.memory_bytes,
        "output_bytes": record.stdout_seen_bytes + record.stderr_seen_bytes,
        "signal": record.signal,
        "limits_hit": record.limits_hit,
        "wall_seconds": record.wall_seconds,
        "cpu_seconds": record.cpu_seconds,
        "peak_memory_bytes": record.peak_memory_bytes,
        "used": resources(record),
        "egress": connections(record),
    }


def not_done(told: Told, outcome: Outcome, error: BaseException | None) -> Ended:
    """The end of an operation that failed, was stopped or was lost. `retryable` tells whether another attempt may
    succeed."""
    command = told.command
    reason = error.reason if isinstance(error, SandboxFailure) else getattr(error, "code", outcome.value)
    retryable = None if outcome is Outcome.CANCELED else bool(getattr(error, "retryable", True))
    metrics.SANDBOX_EXEC.labels(told.driver, reason).observe(told.duration_seconds)
    fact = ExecEnded(
        effect_id=command.effect_id,
        run_id=command.run_id,
        attempt=told.attempt,
        outcome=outcome,
        operation=command.operation.kind,
        tool=tool_name(command),
        reason=reason,
        driver=told.driver,
        level=told.level,
        duration_seconds=told.duration_seconds,
        retryable=retryable,
    )
    answer = SandboxResult(
        effect_id=command.effect_id,
        run_id=command.run_id,
        attempt=told.attempt,
        outcome=outcome,
        checkpoint=command.checkpoint,
        reason=reason,
        error_reason=reason,
        error=error.detail if isinstance(error, CodeAgentError) else "",
        retryable=retryable,
    )
    return Ended(exec_stream(command.effect_id), fact, answer, command.run_id)
