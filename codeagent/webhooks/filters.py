"""Which events a webhook wants: names such as `run.completed`, families such as `run.*`, or `*` for all.

What can be told are the events of runs, as their streams show them, and that a budget is nearly or wholly spent.
"""

from __future__ import annotations

from collections.abc import Sequence

from codeagent.messages.budget_events import BudgetThresholdReached
from codeagent.messages.catalog import RUN_EVENTS
from codeagent.messages.ids import budget_notice_stream, run_stream

PUBLIC = {
    **{event.NAME: run_stream("") for event in RUN_EVENTS},
    BudgetThresholdReached.NAME: budget_notice_stream(""),
}
"""How the streams begin that have such an event, by its name."""


def is_public(name: str, stream_id: str) -> bool:
    prefix = PUBLIC.get(name)
    return prefix is not None and stream_id.startswith(prefix)


def is_pattern(text: str) -> bool:
    """Whether it can match anything: a misspelt name would wait for ever."""
    return any(_matches(text, name) for name in PUBLIC)


def wants(patterns: Sequence[str], name: str) -> bool:
    return name in PUBLIC and any(_matches(pattern, name) for pattern in patterns)


def _matches(pattern: str, name: str) -> bool:
    if pattern.endswith(".*"):
        return name.startswith(pattern[:-1])
    return pattern in {"*", name}
