"""Which events a webhook wants: names such as `run.completed`, families such as `run.*`, or `*` for all."""

from __future__ import annotations

from collections.abc import Sequence

from codeagent.messages.catalog import RUN_EVENTS

PUBLIC = frozenset(event.NAME for event in RUN_EVENTS)
"""What can be told: the events of runs, as their streams show them."""


def is_pattern(text: str) -> bool:
    """Whether it can match anything: a misspelt name would wait for ever."""
    return any(_matches(text, name) for name in PUBLIC)


def wants(patterns: Sequence[str], name: str) -> bool:
    return name in PUBLIC and any(_matches(pattern, name) for pattern in patterns)


def _matches(pattern: str, name: str) -> bool:
    if pattern.endswith(".*"):
        return name.startswith(pattern[:-1])
    return pattern in {"*", name}
