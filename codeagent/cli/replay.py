"""`codeagent replay`: a run as it happened, or what another version of its agent would have decided on its recorded
replies."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from codeagent.cli.connected import FAILED, USAGE, DataDir, connected, failure

if TYPE_CHECKING:
    from codeagent.agent.actions import Difference
    from codeagent.agent.replay import Divergence
    from codeagent.cli.client import Client
    from codeagent.cli.re_execution import ReExecution

DIVERGED = 4
"""The exit status of a replay in which the other version decided otherwise."""


def replay(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="A run that has ended.")],
    agent: Annotated[
        str | None,
        typer.Option(help="Version to give its replies to, as in reviewer@3; else the run is shown."),
    ] = None,
    live: Annotated[bool, typer.Option("--live", help="Go on from the first divergence with real calls.")] = False,
    until: Annotated[int | None, typer.Option(min=1, help="Show no more than so many events.")] = None,
    speed: Annotated[float, typer.Option(min=0, help="So many times as fast as it was; 0 shows all at once.")] = 1.0,
    as_json: Annotated[
        bool, typer.Option("--json", help="With --agent one record, without it one event a line; nothing else.")
    ] = False,
    data_dir: DataDir = None,
) -> None:
    """Show a run as it happened; or, with --agent, give its recorded replies to another version and tell where that
    decides otherwise.

    Nothing is called and nothing is spent, but with --live: then a new run goes on from the first divergence, as that
    version. Exit status with --agent: 0 every decision is the same, 4 one is not, 1 it cannot be told, 2 usage; of a
    run that went on, as of codeagent run.
    """
    if agent is None and live:
        raise failure("--live goes on as another version: say --agent", USAGE)
    if agent is not None and (until is not None or speed != 1.0):
        raise failure("--until and --speed are for a run that is shown: leave --agent out", USAGE)
    with connected(data_dir) as edge:
        if agent is None:
            _play(edge, run_id, until, speed, as_json=as_json)
            return
        done = _re_executed(edge, run_id, agent)
        if not as_json:
            _tell(done)
        status, went_on = (_status(done), None) if not live else _live(edge, done, as_json=as_json)
    if as_json:
        typer.echo(json.dumps(done.record() | ({"live": went_on} if live else {}), default=str))
    raise typer.Exit(status)


def _play(edge: Client, run_id: str, until: int | None, speed: float, *, as_json: bool) -> None:
    from codeagent.cli.playback import Pace, play
    from codeagent.errors import InvalidInput

    try:
        state = play(edge, run_id, Pace(until, speed), as_json=as_json)
    except InvalidInput as error:
        raise failure(f"{error.detail} ({error.code})", USAGE) from None
    if not as_json:
        figures = f"{state['steps']} steps, {state['usage']['cost_usd']} USD"
        typer.echo(f"after {state['version']} events: {state['status']}, {figures}")


def _re_executed(edge: Client, run_id: str, agent: str) -> ReExecution:
    from codeagent.cli.re_execution import re_execute
    from codeagent.errors import CodeAgentError, InvalidInput

    try:
        return re_execute(edge, run_id, agent)
    except InvalidInput as error:
        raise failure(f"{error.detail} ({error.code})", USAGE) from None
    except CodeAgentError as error:
        raise failure(f"{error.detail} ({error.code})") from None


def _live(edge: Client, done: ReExecution, *, as_json: bool) -> tuple[int, dict[str, Any] | None]:
    """The exit status, and what a run that went on came to; None where there was nothing to go on with."""
    from codeagent.cli.going_on import go_on, place_of

    place = place_of(done)
    if isinstance(place, str):
        if not as_json:
            typer.echo(place)
        return _status(done), None
    status, live = go_on(edge, done, place, as_json=as_json)
    return status, live.record()


def _status(done: ReExecution) -> int:
    if done.replay.divergences:
        return DIVERGED
    return FAILED if done.replay.not_reproduced_at is not None else 0


def _tell(done: ReExecution) -> None:
    from codeagent.cli.re_execution import reference_of

    outcome, recorded, other = done.replay, done.recorded, done.other
    typer.echo(f"{recorded.run_id}  {reference_of(recorded)}  {recorded.model}  {done.status}")
    typer.echo(f"replayed with  {reference_of(other)}  {other.model}")
    for change in done.changes:
        typer.echo(f"  {_difference(change)}")
    for place, divergence in enumerate(outcome.divergences):
        _tell_divergence("first divergence" if place == 0 else "then", divergence)
    if not outcome.divergences:
        typer.echo("no divergence")
    if outcome.request is not None:
        parts = " and ".join(outcome.request.parts)
        typer.echo(f"request differs from step {outcome.request.step} on, in its {parts}: real replies might differ")
    if outcome.not_reproduced_at is not None:
        typer.echo(
            f"not reproduced: after event {outcome.not_reproduced_at} this program decides otherwise than the one that "
            "recorded the run (not_reproducible)"
        )
    typer.echo(f"{outcome.decisions} of {outcome.recorded_decisions} decisions compared")
    _tell_cost(done)


def _tell_divergence(title: str, found: Divergence) -> None:
    terms = "the same on other terms" if found.kind == "terms" else "another action"
    typer.echo(f"{title}: step {found.step}, on {found.on} after event {found.after_version}, {terms}")
    typer.echo(f"  recorded  {_action(found.recorded)}")
    typer.echo(f"  other     {_action(found.other)}")
    for difference in found.differs:
        typer.echo(f"  {_difference(difference)}")


def _tell_cost(done: ReExecution) -> None:
    record = done.record()["cost"]
    told = {name: record[name] or "unknown" for name in ("recorded_usd", "other_usd", "difference_usd")}
    replies = f"{record['replies']} replies cost {told['recorded_usd']} USD"
    typer.echo(f"{replies}, with {done.other.model} {told['other_usd']} USD, difference {told['difference_usd']}")


def _action(action: dict[str, Any] | None) -> str:
    if action is None:
        return "nothing, it waits on"
    # As JSON, which spells out what a terminal would obey.
    words = (action[name] for name in ("action", "tool", "code", "status", "reason") if action.get(name))
    return " ".join(json.dumps(word).strip('"') for word in words)


def _difference(difference: Difference) -> str:
    return f"{difference.pointer}: {json.dumps(difference.recorded)} -> {json.dumps(difference.other)}"
