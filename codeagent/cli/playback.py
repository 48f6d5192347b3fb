"""`codeagent replay RUN` without another version: the run as it was seen, event by event, at the pace it had."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rich.console import Console

from codeagent.cli.client import Client, ServerEvent
from codeagent.cli.screen import Screen
from codeagent.errors import InvalidInput
from codeagent.messages.envelope import TYPE_PREFIX

LONGEST_PAUSE_SECONDS = 5.0
"""Nobody wants to wait for an approval a second time."""


@dataclass(frozen=True, slots=True)
class Pace:
    """`speed` times as fast as it was; 0 for all at once. Ends after the event `until`, if it is not None."""

    until: int | None = None
    speed: float = 1.0

    def pause(self, seconds: float) -> float:
        """How long to wait between two events that were so far apart."""
        return min(max(seconds, 0.0) / self.speed, LONGEST_PAUSE_SECONDS) if self.speed else 0.0


def play(
    client: Client, run_id: str, pace: Pace, *, as_json: bool, sleep: Callable[[float], None] = time.sleep
) -> dict[str, Any]:
    """Shows a run and returns what it was after the last event shown. Raises `InvalidInput` (`run_not_ended`) for one
    that is at work, unless it is told where to end, and `ApiError`."""
    run = client.run(run_id)
    if pace.until is None and run["status"] not in {"completed", "failed", "canceled", "rejected"}:
        detail = "The run has not ended: follow it with `codeagent run`, or say --until."
        raise InvalidInput(detail, code="run_not_ended")
    until = run["version"] if pace.until is None else pace.until
    state = client.get(f"/v1/runs/{run_id}/state?at={until}")
    screen, before = Screen(Console(stderr=as_json, highlight=False)), None
    for event in _events(client, run_id, until):
        at = datetime.fromisoformat(event["time"])
        if before is not None:
            sleep(pace.pause((at - before).total_seconds()))
        before = at
        if as_json:
            sys.stdout.write(json.dumps(event) + "\n")
            sys.stdout.flush()
        else:
            screen.show(_shown(event))
    return state


def _events(client: Client, run_id: str, until: int) -> Iterator[dict[str, Any]]:
    """The first `until` events, as structured CloudEvents."""
    after = 0
    while after < until:
        page = client.get(f"/v1/runs/{run_id}/events?after={after}&limit=200")
        for event in page["items"]:
            after = int(event["sequence"])
            if after > until:
                return
            yield event
        if page["next_after"] is None:
            return


def _shown(event: dict[str, Any]) -> ServerEvent:
    name, _, _ = event["type"].removeprefix(TYPE_PREFIX).rpartition(".")
    return ServerEvent(name, {"data": event["data"]}, int(event["sequence"]))
