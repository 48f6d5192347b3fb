"""Answers about usage."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any

from pydantic import BaseModel, Field

from codeagent.edge.models import Strict
from codeagent.edge.moments import Day
from codeagent.projections.tally import Tally
from codeagent.projections.usage_report import Dimension, RunUsage, UsageQuery, UsageReport, UsageRow
from codeagent.quotas.quota import MIB_MS_PER_GIB_HOUR

Only = Annotated[
    str | None,
    Field(default=None, max_length=200, pattern=r"^[^\x00]+$", description="Only the use of this one."),
]


class UsageParameters(Strict):
    """What is asked for."""

    first_day: Day | None = Field(default=None, alias="from", description="First day, of UTC; 29 before the last one.")
    last_day: Day | None = Field(default=None, alias="to", description="Last day, of UTC and included; today.")
    group_by: list[Dimension] = Field(
        default=[Dimension.DAY], min_length=1, max_length=3, description="What the sums are told apart by."
    )
    model: Only
    project_id: Only
    session_id: Only
    principal_id: Only
    limit: int = Field(default=200, ge=1, le=200)
    cursor: str | None = Field(default=None, max_length=2_000)


class RunCounts(BaseModel):
    """Runs by what became of them; those submitted have not all ended."""

    submitted: int
    completed: int
    failed: int
    canceled: int
    rejected: int


class UsageFigures(BaseModel):
    """Sums. `input_tokens` includes what was read from or written to a vendor's cache."""

    calls: int = Field(description="Model calls, failed ones included.")
    cached_calls: int = Field(description="Those among them that were answered from the response cache, for nothing.")
    unpriced_calls: int = Field(description="Those among them whose price is not known: they are missing in the cost.")
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    cost_usd: str
    sandbox_seconds: float = Field(description="How long commands ran.")
    commands: int = Field(description="Commands that ran in sandboxes.")
    cpu_seconds: float = Field(description="CPU time of commands.")
    gib_hours: float = Field(description="Memory limit of each command, times how long it ran.")
    runs: RunCounts

    @classmethod
    def values(cls, tally: Tally) -> dict[str, Any]:
        return {
            "calls": tally.calls,
            "cached_calls": tally.cached_calls,
            "unpriced_calls": tally.unpriced_calls,
            "input_tokens": tally.input_tokens,
            "output_tokens": tally.output_tokens,
            "cache_read_tokens": tally.cache_read_tokens,
            "cache_write_tokens": tally.cache_write_tokens,
            "cost_usd": f"{tally.cost_usd:f}",
            "sandbox_seconds": tally.sandbox_ms / 1_000,
            "commands": tally.commands,
            "cpu_seconds": tally.cpu_ms / 1_000,
            "gib_hours": round(tally.memory_mib_ms / MIB_MS_PER_GIB_HOUR, 6),
            "runs": RunCounts(
                submitted=tally.runs_submitted,
                completed=tally.runs_completed,
                failed=tally.runs_failed,
                canceled=tally.runs_canceled,
                rejected=tally.runs_rejected,
            ),
        }


class UsageItem(UsageFigures):
    """One group. What was not grouped by is null, and so is a project or session of runs that have none."""

    day: date | None = None
    model: str | None = None
    provider: str | None = None
    project_id: str | None = None
    session_id: str | None = None
    principal_id: str | None = None

    @classmethod
    def of(cls, group_by: tuple[Dimension, ...], row: UsageRow) -> UsageItem:
        keys = {_FIELDS[dimension]: key or None for dimension, key in zip(group_by, row.keys, strict=True)}
        return cls.model_validate({**cls.values(row.tally), **keys})


_FIELDS = {
    Dimension.DAY: "day",
    Dimension.MODEL: "model",
    Dimension.PROVIDER: "provider",
    Dimension.PROJECT: "project_id",
    Dimension.SESSION: "session_id",
    Dimension.PRINCIPAL: "principal_id",
}


class UsagePage(BaseModel):
    """`totals` are those of the whole range, whatever the page shows of it."""

    first_day: date = Field(serialization_alias="from")
    last_day: date = Field(serialization_alias="to")
    group_by: list[Dimension]
    items: list[UsageItem]
    totals: UsageFigures
    next_cursor: str | None

    @classmethod
    def of(cls, query: UsageQuery, report: UsageReport) -> UsagePage:
        return cls(
            first_day=query.first,
            last_day=query.last,
            group_by=list(query.group_by),
            items=[UsageItem.of(query.group_by, row) for row in report.rows],
            totals=UsageFigures(**UsageFigures.values(report.totals)),
            next_cursor=report.next_cursor,
        )


class RunUsageModel(BaseModel):
    """What a run has used, by model. Once `settled`, its end has been counted; a bill may still come late."""

    run_id: str
    settled: bool
    items: list[UsageItem]
    totals: UsageFigures

    @classmethod
    def of(cls, run_id: str, usage: RunUsage) -> RunUsageModel:
        totals = Tally()
        for row in usage.models:
            totals.add(row.tally)
        return cls(
            run_id=run_id,
            settled=usage.settled,
            items=[UsageItem.of((Dimension.MODEL,), row) for row in usage.models],
            totals=UsageFigures(**UsageFigures.values(totals)),
        )
