"""What became of a sandbox operation, in words: the fact for its stream, the answer for its run."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

from codeagent.errors import CodeAgentError
from codeagent.messages.commands import ExecuteOperation
from codeagent.messages.events import ExecEnded
from codeagent.messages.ids import exec_stream
from codeagent.messages.results import SandboxResult
from codeagent.messages.values import BASE_CHECKPOINT, Artifact, CallTool, Outcome
from codeagent.sandboxes.protocol import SandboxDriver, SandboxFailure
from codeagent.telemetry import metrics
from codeagent.workers.effect import Ended, Work
from codeagent.workers.toolbox import ToolOutcome
from codeagent.workers.use import use_of


@dataclass(frozen=True, slots=True)
class Done:
    """What an operation brought, before it is put into words."""

    tool: ToolOutcome | None = None
    base: str | None = None
    checkpoint: str = BASE_CHECKPOINT
    patch: Artifact | None = None
    input_digest: str = ""
    memory_bytes: int = 0
    """What its command was let use."""


def of_operation(driver: SandboxDriver, work: Work, done: Done) -> Ended:
    """Of one that came to its end, whatever its command's exit status."""
    command = _command(work)
    tool, record = done.tool, done.tool.record if done.tool is not None else None
    output_ref = f"sha256:{sha256(tool.whole).hexdigest()}" if tool is not None and tool.whole is not None else None
    reason = tool.reason if tool is not None else "ok"
    metrics.SANDBOX_EXEC.labels(driver.name, reason).observe(work.elapsed_seconds)
    used = None if record is None else use_of(record, done.memory_bytes)
    fact = ExecEnded(
        effect_id=command.effect_id,
        run_id=command.run_id,
        attempt=work.claim.attempt,
        outcome=Outcome.DONE,
        operation=command.operation.kind,
        tool=command.operation.call.name if isinstance(command.operation, CallTool) else None,
        input_digest=done.input_digest,
        reason=reason,
        exit_code=tool.exit_code if tool is not None else None,
        limits_hit=record.limits_hit if record is not None else (),
        driver=driver.name,
        level=int(driver.level),
        wall_seconds=record.wall_seconds if record is not None else 0.0,
        cpu_seconds=record.cpu_seconds if record is not None else 0.0,
        peak_memory_bytes=record.peak_memory_bytes if record is not None else 0,
        output_digest=f"sha256:{sha256((tool.text if tool else '').encode()).hexdigest()}",
        checkpoint=done.checkpoint,
        duration_seconds=work.elapsed_seconds,
        memory_limit_bytes=done.memory_bytes if record is not None else None,
        output_bytes=None if used is None else used.output_bytes,
    )
    answer = SandboxResult(
        effect_id=command.effect_id,
        run_id=command.run_id,
        attempt=work.claim.attempt,
        outcome=Outcome.DONE,
        output=tool.text if tool is not None else "",
        output_ref=output_ref,
        reason=reason,
        exit_code=tool.exit_code if tool is not None else None,
        base=done.base,
        checkpoint=done.checkpoint,
        patch=done.patch,
        duration_seconds=work.elapsed_seconds,
        used=used,
    )
    return Ended(exec_stream(command.effect_id), fact, answer)


def without_result(driver: SandboxDriver, work: Work, outcome: Outcome, error: BaseException | None) -> Ended:
    """Of one that failed, was stopped or was lost. `retryable` tells whether another attempt may succeed."""
    command = _command(work)
    reason = error.reason if isinstance(error, SandboxFailure) else getattr(error, "code", outcome.value)
    retryable = None if outcome is Outcome.CANCELED else bool(getattr(error, "retryable", True))
    metrics.SANDBOX_EXEC.labels(driver.name, reason).observe(work.elapsed_seconds)
    fact = ExecEnded(
        effect_id=command.effect_id,
        run_id=command.run_id,
        attempt=work.claim.attempt,
        outcome=outcome,
        operation=command.operation.kind,
        reason=reason,
        driver=driver.name,
        level=int(driver.level),
        duration_seconds=work.elapsed_seconds,
        retryable=retryable,
    )
    answer = SandboxResult(
        effect_id=command.effect_id,
        run_id=command.run_id,
        attempt=work.claim.attempt,
        outcome=outcome,
        checkpoint=command.checkpoint,
        reason=reason,
        error_reason=reason,
        error=error.detail if isinstance(error, CodeAgentError) else "",
        retryable=retryable,
    )
    return Ended(exec_stream(command.effect_id), fact, answer)


def _command(work: Work) -> ExecuteOperation:
    command = work.message.data
    assert isinstance(command, ExecuteOperation)
    return command
