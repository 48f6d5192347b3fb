"""The model calls of a run, over HTTP and on the terminal."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from decimal import Decimal
from uuid import UUID

import pytest
import typer
from typer.testing import CliRunner

from codeagent import clock
from codeagent.cli.calls import show_calls
from codeagent.eventlog.database import Database
from codeagent.messages import events
from codeagent.messages.calls import CallEnded, ModelAttempt, ModelSwitched
from codeagent.messages.conversation import FinishReason, Usage
from codeagent.messages.prices import PriceTold
from codeagent.messages.values import Outcome
from tests.integration.edge.gateway import MINE, OTHERS, Edge
from tests.integration.projections.logs import Happened, call, new_run_id, submitted, write

ASKED, REPLIED, FIGURES = ("sha256:" + letter * 64 for letter in "abc")
USED = Usage(input_tokens=100, output_tokens=10, cache_read_tokens=40)
TOKENS = USED.model_dump()
PRICE = PriceTold(source="operator", version="2026-11-01", digest=FIGURES)


@pytest.fixture
async def owner(newest_database_url: str) -> AsyncIterator[Database]:
    opened = Database(newest_database_url, connections=2)
    yield opened
    await opened.close()


def step(number: int, name: events.StepName = "think") -> events.StepStarted:
    return events.StepStarted(step=number, name=name, effect_id=clock.new_uuid())


def switched(effect_id: UUID, run_id: str) -> ModelSwitched:
    return ModelSwitched(
        effect_id=effect_id, run_id=run_id, attempt=1, from_model="test/a", to_model="test/b", reason="timeout"
    )


def ended(effect_id: UUID, run_id: str) -> CallEnded:
    """After a first model that has not replied in time, and was paid."""
    cut = ModelAttempt(
        provider="test", model="a", reason="timeout", usage=USED, cost_usd=Decimal("0.10"), seconds=30.0, price=PRICE
    )
    fine = ModelAttempt(provider="test", model="b", usage=USED, seconds=1.5)
    told = {"response_model": "b-2026", "request_digest": ASKED, "reply_digest": REPLIED, "first_token_seconds": 0.5}
    end = call(run_id, "test/b", USED + USED, "0.10", attempts=(cut, fine))
    return end.model_copy(update={**told, "effect_id": effect_id, "finish_reason": FinishReason.TOOL_CALLS})


async def a_run(owner: Database, tenant_id: str = MINE) -> str:
    """Two calls that have ended, one of which failed, and a third at work."""
    run_id, first, second, third = new_run_id(), step(1), step(2), step(3)
    failed = call(run_id, "test/a", Usage(), None, Outcome.FAILED).model_copy(
        update={"effect_id": second.effect_id, "error_reason": "overloaded", "request_digest": ASKED}
    )
    story = (
        submitted(run_id, "usr_owner", "test/a"),
        step(0, "prepare"),
        first,
        switched(first.effect_id, run_id),
        ended(first.effect_id, run_id),
        second,
        failed,
        third,
    )
    await write(owner, [Happened(run_id, event, tenant_id=tenant_id) for event in story])
    return run_id


async def test_a_call_is_told_with_its_attempts_their_prices_and_how_it_ended(edge: Edge, owner: Database) -> None:
    run_id = await a_run(owner)
    answer = await edge.call(edge.keys.owner, "GET", f"/v1/runs/{run_id}/calls")
    assert answer.status_code == 200, answer.text
    first, second, third = answer.json()["items"]
    assert [item["step"] for item in (first, second, third)] == [1, 2, 3]
    cut, fine = first["attempts"]
    assert (cut["reason"], cut["usage"], cut["cost_usd"], cut["seconds"]) == ("timeout", TOKENS, "0.10", 30.0)
    assert cut["price"] == {"source": "operator", "version": "2026-11-01", "digest": FIGURES}
    assert (fine["provider"], fine["model"], fine["reason"], fine["cost_usd"]) == ("test", "b", None, None)
    [change] = first["switches"]
    assert (change["from_model"], change["to_model"], change["reason"]) == ("test/a", "test/b", "timeout")
    end = first["end"]
    assert (end["model"], end["response_model"], end["finish_reason"]) == ("test/b", "b-2026", "tool_calls")
    assert (end["request_digest"], end["reply_digest"]) == (ASKED, REPLIED)
    assert (end["usage"], end["cost_usd"]) == ((USED + USED).model_dump(), "0.10")
    assert (end["first_token_seconds"], end["duration_seconds"], end["cached"]) == (0.5, 1.0, False)
    failed = second["end"]
    assert (failed["outcome"], failed["error_reason"], failed["finish_reason"]) == ("failed", "overloaded", None)
    assert (failed["request_digest"], failed["reply_digest"]) == (ASKED, None)
    assert (third["attempts"], third["switches"], third["end"]) == ([], [], None)


async def test_pages_have_every_call_once_and_in_order(edge: Edge, owner: Database) -> None:
    run_id = await a_run(owner)
    steps, path = [], f"/v1/runs/{run_id}/calls?limit=1"
    while path:
        answer = await edge.call(edge.keys.owner, "GET", path)
        steps += [item["step"] for item in answer.json()["items"]]
        path = answer.links["next"]["url"] if "next" in answer.links else ""
    assert steps == [1, 2, 3]
    for cursor in ("x", "-1", "²", "9" * 30):
        refused = await edge.call(edge.keys.owner, "GET", f"/v1/runs/{run_id}/calls?cursor={cursor}")
        assert (refused.status_code, refused.json()["code"]) == (400, "malformed_cursor"), cursor


async def test_calls_are_those_of_the_callers_tenant_alone(edge: Edge, owner: Database) -> None:
    theirs = await a_run(owner, OTHERS)
    answer = await edge.call(edge.keys.owner, "GET", f"/v1/runs/{theirs}/calls")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


async def test_the_terminal_shows_a_call_a_line(edge: Edge, owner: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = await a_run(owner)
    monkeypatch.setenv("CODEAGENT_URL", str(edge.http.base_url))
    monkeypatch.setenv("CODEAGENT_API_KEY", edge.keys.owner)
    app = typer.Typer()
    app.command()(show_calls)
    result = await asyncio.to_thread(CliRunner().invoke, app, [run_id])
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        "step  model  ended  attempts  input_tokens  output_tokens  cost_usd  seconds",
        "1  test/b  tool_calls  2  200  20  0.10  1.0",
        "2  test/a  overloaded  0  0  0  -  1.0",
        "3  -  at work  -  -  -  -  -",
    ]
    again, asked = new_run_id(), step(1)
    hit = call(again, "test/b", Usage(), "0", attempts=()).model_copy(
        update={"effect_id": asked.effect_id, "finish_reason": FinishReason.STOP, "cached": True}
    )
    told = (submitted(again, "usr_owner", "test/b"), asked, hit)
    await write(owner, [Happened(again, event, tenant_id=MINE) for event in told])
    result = await asyncio.to_thread(CliRunner().invoke, app, [again])
    assert result.stdout.splitlines()[1:] == ["1  test/b  stop, cached  0  0  0  0  1.0"]
    result = await asyncio.to_thread(CliRunner().invoke, app, [run_id, "--json"])
    assert [json.loads(line)["step"] for line in result.stdout.splitlines()] == [1, 2, 3]
