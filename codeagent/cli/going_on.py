"""`codeagent replay --live`: from where another version decides otherwise, a new run goes on with real calls."""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import typer
from rich.console import Console

from codeagent.agent.continuing import whole_until
from codeagent.agent.replay import Spent
from codeagent.cli.client import Client, ServerEvent
from codeagent.cli.re_execution import ReExecution, recorded_of, reference_of, spent_after, usd
from codeagent.cli.run import STATUSES, patch_of, show_patch, watch
from codeagent.cli.screen import Screen
from codeagent.messages.envelope import Event
from codeagent.messages.ids import derived_uuid

NO_DIVERGENCE = "nothing to go on with: there is no divergence"
ENDS_THERE = "nothing to go on with: the other version ends the run there"
_ENDS = frozenset({"collect", "verify", "end"})


@dataclass(frozen=True, slots=True)
class WentOn:
    """A run that went on from `from_version` of a recorded one, what it has spent, and what that one had from there."""

    run: dict[str, Any]
    from_version: int
    spent: Spent
    recorded: Spent

    @property
    def difference_usd(self) -> Decimal | None:
        if self.spent.cost_usd is None or self.recorded.cost_usd is None:
            return None
        return self.spent.cost_usd - self.recorded.cost_usd

    def record(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "run_id": self.run["id"],
            "from_version": self.from_version,
            "status": self.run["status"],
            "status_reason": self.run["status_reason"],
            "replies": self.spent.replies,
            "recorded_replies": self.recorded.replies,
            "usd": usd(self.spent.cost_usd),
            "recorded_usd": usd(self.recorded.cost_usd),
            "difference_usd": usd(self.difference_usd),
        }


def place_of(done: ReExecution) -> int | str:
    """The version of the recorded run from which the other one goes on: the newest one before the first divergence at
    which its conversation was whole. Or why there is none."""
    if not done.replay.divergences:
        return NO_DIVERGENCE
    first = done.replay.divergences[0]
    if first.other is not None and first.other["action"] in _ENDS:
        return ENDS_THERE
    facts = [message.data for message in done.stream if isinstance(message.data, Event)]
    return whole_until(facts, first.agreed_version)


def go_on(client: Client, done: ReExecution, place: int, *, as_json: bool) -> tuple[int, WentOn]:
    """Starts the run, or finds the one that the same request had started, and follows it to its end. Returns the exit
    status of that and what it came to. Raises `ApiError`."""
    run_id = done.recorded.run_id
    body = {"agent": reference_of(done.other), "until_version": place}
    key = str(derived_uuid(run_id, "replay", json.dumps(body)))
    run = client.make(f"/v1/runs/{run_id}/replays", body, key)
    console = Console(stderr=as_json, highlight=False)
    if not as_json:
        typer.echo(f"going on from event {place} with real calls")
    last = watch(client, run["id"], console, _nothing if as_json else Screen(console).show, interactive=not as_json)
    spent = spent_after(recorded_of(client, run["id"]))
    live = WentOn(client.run(run["id"]), place, spent, spent_after(done.stream, place))
    if not as_json:
        show_patch(console, patch_of(client, last))
        _tell(live)
    return STATUSES[last.name], live


def _nothing(_: ServerEvent) -> None:
    """The record tells it all."""


def _tell(live: WentOn) -> None:
    told = live.record()
    reason = f" ({told['status_reason']})" if told["status_reason"] else ""
    typer.echo(f"{told['run_id']}  {told['status']}{reason}")
    cost, recorded, difference = (told[name] or "unknown" for name in ("usd", "recorded_usd", "difference_usd"))
    typer.echo(
        f"{told['replies']} replies cost {cost} USD, the recorded run's {told['recorded_replies']} from there on "
        f"{recorded} USD, difference {difference}"
    )
