"""When a run goes round in circles: first its model is told, and if it goes on as before, the run ends."""

from __future__ import annotations

from dataclasses import dataclass

from codeagent.agent.draft import Draft
from codeagent.agent.progress import PERIODS, Progress
from codeagent.messages.events import Ending
from codeagent.messages.loop_events import RunNudged, StuckPattern
from codeagent.messages.values import RunStatus

STUCK = "stuck"
ROUNDS = {1: 4, 2: 3, 3: 3}
"""By period: after so many equal rounds the model is told, and after so many more the run ends."""
FAILING = 6
IDLE = 12
"""The same for replies that only fail, and for those that bring nothing new."""


@dataclass(frozen=True, slots=True)
class Finding:
    """`replies` are so many of the newest that fit; a run that was told of it ends after `patience` more."""

    pattern: StuckPattern
    replies: int
    patience: int
    period: int = 1


def ending(draft: Draft) -> Ending | None:
    """How a run ends that has been told and goes on as before. Where it has yet to be told, it is, and None."""
    progress = draft.state.progress.over()
    found = finding(progress)
    if found is None:
        return None
    if progress.nudged_at is None or progress.nudged_at <= progress.replies - found.replies:
        told = _told(found, progress.tools)
        draft.emit(
            RunNudged(
                pattern=found.pattern,
                replies=found.replies,
                period=found.period,
                tools=progress.tools,
                message=f"{told} {_ADVICE}",
            )
        )
        return None
    if progress.replies - progress.nudged_at < found.patience:
        return None
    return Ending(status=RunStatus.FAILED, reason=STUCK, message=f"The run got nowhere. {_told(found, progress.tools)}")


def finding(progress: Progress) -> Finding | None:
    """What the newest replies have in common, the plainest first; None while they lead somewhere."""
    for period, count in zip(PERIODS, progress.repeats, strict=True):
        patience = period * ROUNDS[period]
        if count and count + period >= patience:
            return Finding("repeated_calls", count + period, patience, period)
    if progress.failing >= FAILING:
        return Finding("failing_calls", progress.failing, FAILING)
    if progress.idle >= IDLE:
        return Finding("no_progress", progress.idle, IDLE)
    return None


_ADVICE = (
    "More of the same will not help. Find out why, try another way, or call submit and say what was done and what was "
    "not."
)


def _told(found: Finding, tools: tuple[str, ...]) -> str:
    newest = f"The last {found.replies} replies"
    called = f" (tools: {', '.join(tools)})" if tools else ""
    match found.pattern:
        case "repeated_calls" if found.period == 1:
            return f"{newest} were the same calls with the same results{called}."
        case "repeated_calls":
            return f"{newest} went round in circles of {found.period}: the same calls with the same results{called}."
        case "failing_calls":
            return f"All calls of the last {found.replies} replies failed and changed no file{called}."
        case "no_progress":
            return f"{newest} led to no files and no answers that had not been there before{called}."
