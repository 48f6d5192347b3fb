"""Answers about what the runs of an agent's versions came to."""

from __future__ import annotations

from datetime import date
from typing import Self

from pydantic import BaseModel, Field

from codeagent.projections.agent_statistics import VersionStatistics


class RunOutcomes(BaseModel):
    """Runs by what they say about their version. `excused` ended for what neither the version nor its model can help:
    the platform, a source or dependencies, a budget of the tenant, an approval that nobody answered."""

    submitted: int
    open: int
    succeeded: int
    failed: int
    canceled: int
    excused: int


class VersionStatisticsModel(BaseModel):
    """What the runs of one version came to. Sums are of all of them; percentiles are exact, and of runs that succeeded
    or failed; durations are without the time that people took for their answers."""

    version: int
    runs: RunOutcomes
    success_rate: float | None = Field(description="Succeeded, of those that succeeded or failed.")
    steps: int
    model_calls: int
    cached_calls: int = Field(description="Those among them that were answered from the response cache.")
    unpriced_calls: int = Field(description="Calls whose price is not known: they are missing in the cost.")
    input_tokens: int
    output_tokens: int
    cost_usd: str
    cost_usd_p50: str | None
    cost_usd_p95: str | None
    duration_p50_seconds: float | None
    duration_p95_seconds: float | None
    tool_calls: int
    tool_failures: int = Field(description="Tools that did not run, or were ended before they were done.")
    approvals_asked: int
    approvals_rejected: int
    approvals_expired: int

    @classmethod
    def of(cls, found: VersionStatistics) -> Self:
        copied = {name: getattr(found, name) for name in _COPIED}
        return cls(
            **copied,
            success_rate=None if found.success_rate is None else round(found.success_rate, 4),
            runs=RunOutcomes(
                submitted=found.runs,
                open=found.open,
                succeeded=found.succeeded,
                failed=found.failed,
                canceled=found.canceled,
                excused=found.excused,
            ),
            model_calls=found.calls,
            cost_usd=f"{found.cost_usd:f}",
            cost_usd_p50=None if found.cost_usd_p50 is None else f"{found.cost_usd_p50:f}",
            cost_usd_p95=None if found.cost_usd_p95 is None else f"{found.cost_usd_p95:f}",
            duration_p50_seconds=None if found.working_ms_p50 is None else found.working_ms_p50 / 1_000,
            duration_p95_seconds=None if found.working_ms_p95 is None else found.working_ms_p95 / 1_000,
        )


_COPIED = (
    "version",
    "steps",
    "cached_calls",
    "unpriced_calls",
    "input_tokens",
    "output_tokens",
    "tool_calls",
    "tool_failures",
    "approvals_asked",
    "approvals_rejected",
    "approvals_expired",
)


class AgentStatisticsPage(BaseModel):
    """Versions that had runs on these days, newest first."""

    agent_id: str
    agent: str
    since: date
    until: date
    items: list[VersionStatisticsModel]
    next_cursor: str | None
