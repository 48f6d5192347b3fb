"""What a command has used, for its run and for operators."""

from __future__ import annotations

from codeagent.messages.sandbox_limits import CommandUse
from codeagent.quotas.quota import MIB_MS_PER_GIB_HOUR
from codeagent.sandboxes.protocol import ExecRecord
from codeagent.telemetry import metrics


def use_of(record: ExecRecord, memory_bytes: int) -> CommandUse:
    """`memory_bytes` is what the command was let use. Counted in the metrics."""
    used = CommandUse(
        commands=1,
        wall_ms=round(record.wall_seconds * 1_000),
        cpu_ms=round(record.cpu_seconds * 1_000),
        output_bytes=record.stdout_seen_bytes + record.stderr_seen_bytes,
    )
    metrics.SANDBOX_CPU.labels(record.driver).inc(used.cpu_ms / 1_000)
    metrics.SANDBOX_MEMORY.labels(record.driver).inc((memory_bytes >> 20) * used.wall_ms / MIB_MS_PER_GIB_HOUR)
    metrics.SANDBOX_OUTPUT.labels(record.driver).inc(used.output_bytes)
    for limit in record.limits_hit:
        metrics.SANDBOX_LIMITS_HIT.labels(record.driver, limit).inc()
    return used
