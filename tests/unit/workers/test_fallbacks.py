"""A call that one model cannot answer goes on with the next: when it does, what is told of it, and what it costs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import cast

import pytest

from codeagent import clock
from codeagent.artifacts.store import LocalArtifactStore
from codeagent.errors import InvalidInput
from codeagent.eventlog.effects import Claim
from codeagent.eventlog.log import EventLog
from codeagent.messages.calls import CallEnded, ModelSwitched
from codeagent.messages.commands import GenerateReply
from codeagent.messages.conversation import AssistantMessage, Usage
from codeagent.messages.envelope import Envelope, Message
from codeagent.messages.results import ProviderResult
from codeagent.messages.values import Outcome
from codeagent.providers.breaker import Breaker
from codeagent.providers.protocol import ModelReply, ModelRequest, ProviderError
from codeagent.providers.retry import ResilientProvider, RetryPolicy
from codeagent.providers.scripted import Answer, ScriptedProvider
from codeagent.workers.effect import Work
from codeagent.workers.ended import Ended
from codeagent.workers.fallbacks import Candidate, successor
from codeagent.workers.provider import ProviderPerformer

ONCE = RetryPolicy(max_attempts=1)


def spent(tokens: int) -> Usage:
    return Usage(input_tokens=tokens, output_tokens=1)


def error(reason: str, *, retryable: bool = True, tokens: int = 0, cost: str | None = None) -> ProviderError:
    usage = spent(tokens) if tokens else None
    cost_usd = None if cost is None else Decimal(cost)
    return ProviderError(f"it is {reason}", reason=reason, retryable=retryable, usage=usage, cost_usd=cost_usd)


def reply(text: str, tokens: int = 0, cost: str = "0") -> ModelReply:
    return ModelReply(AssistantMessage(text=text), spent(tokens), Decimal(cost), response_model="the-very-model")


@dataclass
class Models:
    """What a worker knows: models by their whole name, each of them a provider of its own with one answer a request."""

    folder: Path
    answers: dict[str, Sequence[Answer]]
    windows: dict[str, int] = field(default_factory=dict)
    policy: RetryPolicy = ONCE
    deltas: list[dict[str, object]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    fallbacks: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        self._known = {}
        for label, answers in self.answers.items():
            left = list(answers)

            def script(_request: ModelRequest, label: str = label, left: list[Answer] = left) -> Answer:
                self.asked.append(label)
                return left.pop(0)

            provider = label.partition("/")[0]
            twin = ScriptedProvider(script, name=provider, context_window=self.windows.get(label, 128_000))
            self._known[label] = ResilientProvider(twin, Breaker(provider), self.policy, sleep=_at_once)

    def resolve(self, label: str) -> tuple[ResilientProvider, str]:
        if label not in self._known:
            raise InvalidInput(f"There is no model {label!r}.", code="unsupported_model")
        return self._known[label], label.partition("/")[2]

    async def _send(self, _key: str, value: bytes) -> None:
        self.deltas.append(json.loads(value))

    async def call(self, claim: int = 1, memo: bytes | None = None) -> tuple[Work, Ended]:
        """One claim of a call. How it ends is told as the loop around it would have it told."""
        store = LocalArtifactStore(self.folder)
        await store.start()
        log = cast(EventLog, None)  # the command is at version 0: there is nothing to read
        performer = ProviderPerformer(log, store, self.resolve, self._send, answers_topic="t")
        first, *others = self.answers
        command = GenerateReply(
            effect_id=clock.new_uuid(),
            run_id="run_1",
            at_version=0,
            model=first,
            max_output_tokens=100,
            fallbacks=tuple(others) if self.fallbacks is None else self.fallbacks,
        )
        envelope = Envelope(
            command.effect_id, command.NAME, 1, "/test", clock.now(), "ten_a", "run_1", command.effect_id
        )
        work = Work(Message(envelope, command), Claim(command.effect_id, clock.new_uuid(), claim, False, memo))
        try:
            return work, await performer.perform(work)
        except Exception as raised:
            return work, performer.ended(work, Outcome.FAILED, raised)


async def _at_once(_seconds: float) -> None:
    """Waits are not what is tested here."""


def told(ended: Ended) -> tuple[CallEnded, ProviderResult, list[tuple[str, str, str]]]:
    assert isinstance(ended.fact, CallEnded)
    assert isinstance(ended.answer, ProviderResult)
    switches = [fact for fact, _ in ended.before if isinstance(fact, ModelSwitched)]
    assert len(switches) == len(ended.before)
    return ended.fact, ended.answer, [(each.from_model, each.to_model, each.reason) for each in switches]


@pytest.mark.parametrize(
    "reason",
    [
        "rate_limited",
        "overloaded",
        "timeout",
        "connection",
        "authentication",
        "permission",
        "not_found",
        "internal",
        "bad_response",
    ],
)
async def test_what_lies_with_the_provider_another_may_answer(tmp_path: Path, reason: str) -> None:
    models = Models(tmp_path, {"one/a": [error(reason, retryable=False)], "two/b": [reply("fine")]})
    _, ended = await models.call()
    fact, answer, switches = told(ended)
    assert answer.outcome is Outcome.DONE
    assert answer.message is not None
    assert answer.message.text == "fine"
    assert (fact.model, fact.response_model, answer.model) == ("two/b", "the-very-model", "the-very-model")
    assert switches == [("one/a", "two/b", reason)]


@pytest.mark.parametrize("reason", ["invalid_request", "content_filtered", "context_overflow"])
async def test_what_lies_with_the_request_is_not_asked_twice(tmp_path: Path, reason: str) -> None:
    models = Models(tmp_path, {"one/a": [error(reason, retryable=False)], "two/b": [reply("never")]})
    _, ended = await models.call()
    fact, answer, switches = told(ended)
    assert (answer.outcome, answer.error_reason, fact.model) == (Outcome.FAILED, reason, "one/a")
    assert (switches, models.asked) == ([], ["one/a"])


async def test_too_long_a_conversation_goes_to_the_next_that_takes_more(tmp_path: Path) -> None:
    overflow = error("context_overflow", retryable=False)
    answers = {"one/a": [overflow], "two/b": [reply("never")], "three/c": [reply("roomy")]}
    models = Models(tmp_path, answers, windows={"one/a": 8_000, "two/b": 8_000, "three/c": 9_000})
    _, ended = await models.call()
    assert told(ended)[2] == [("one/a", "three/c", "context_overflow")]
    assert models.asked == ["one/a", "three/c"]


async def test_the_next_is_asked_once_the_first_has_had_its_retries(tmp_path: Path) -> None:
    answers = {"one/a": [error("overloaded")] * 3, "two/b": [error("timeout"), reply("fine")]}
    models = Models(tmp_path, answers, policy=RetryPolicy())
    _, ended = await models.call()
    fact, _, switches = told(ended)
    assert models.asked == ["one/a"] * 3 + ["two/b"] * 2
    assert switches == [("one/a", "two/b", "overloaded")]
    assert fact.attempts is not None
    assert [(each.provider, each.model, each.reason) for each in fact.attempts] == [
        ("one", "a", "overloaded"),
        ("one", "a", "overloaded"),
        ("one", "a", "overloaded"),
        ("two", "b", "timeout"),
        ("two", "b", None),
    ]


async def test_an_open_circuit_sends_the_call_on_without_a_request(tmp_path: Path) -> None:
    models = Models(tmp_path, {"one/a": [], "two/b": [reply("fine")]})
    models.resolve("one/a")[0].breaker.restore_open(0.0)
    _, ended = await models.call()
    assert told(ended)[2] == [("one/a", "two/b", "circuit_open")]
    assert models.asked == ["two/b"]


async def test_a_model_that_the_worker_does_not_have_is_passed_over(tmp_path: Path) -> None:
    models = Models(tmp_path, {"one/a": [error("timeout")], "two/b": [reply("fine")]}, fallbacks=("gone/x", "two/b"))
    _, ended = await models.call()
    assert told(ended)[2] == [("one/a", "two/b", "timeout")]
    alone = Models(tmp_path, {"gone/x": [], "two/b": [reply("fine")]})
    del alone._known["gone/x"]
    _, ended = await alone.call()
    assert told(ended)[2] == [("gone/x", "two/b", "not_found")]


async def test_where_none_can_answer_the_last_error_counts_and_is_tried_again_if_any_may_pass(tmp_path: Path) -> None:
    refused = error("authentication", retryable=False)
    models = Models(tmp_path, {"one/a": [error("overloaded")], "two/b": [refused]})
    _, ended = await models.call()
    assert told(ended)[1].error_reason == "authentication"
    assert refused.retryable


def test_there_is_no_successor_to_the_last() -> None:
    chain = [Candidate("one/a", ResilientProvider(ScriptedProvider([]), Breaker("one")), "a")]
    assert successor(error("timeout"), chain, 0) is None


async def test_text_of_each_attempt_has_a_higher_number_than_that_before(tmp_path: Path) -> None:
    cut = Models(tmp_path, {"one/a": [error("connection")] * 2, "two/b": [reply("from the second")]})
    cut.policy = RetryPolicy(max_attempts=2)
    cut.__post_init__()
    await cut.call()
    [first] = {delta["attempt"] for delta in cut.deltas}
    assert first == 3, "the third attempt of the first claim"
    again = Models(tmp_path, {"one/a": [reply("from the first")], "two/b": []})
    await again.call(claim=2)
    [later] = {delta["attempt"] for delta in again.deltas}
    assert isinstance(later, int)
    assert later > 2 * 3, "whatever the claim before could have come to"


async def test_every_attempt_that_used_something_is_paid_for(tmp_path: Path) -> None:
    answers = {"one/a": [error("timeout", tokens=100, cost="0.10")], "two/b": [reply("fine", tokens=20, cost="0.02")]}
    _, ended = await Models(tmp_path, answers).call()
    fact, answer, _ = told(ended)
    assert fact.usage == answer.usage == spent(100) + spent(20)
    assert fact.cost_usd == answer.cost_usd == Decimal("0.12")
    assert fact.attempts is not None
    assert [(each.usage, each.cost_usd) for each in fact.attempts] == [
        (spent(100), Decimal("0.10")),
        (spent(20), Decimal("0.02")),
    ]


async def test_a_call_that_fails_has_its_attempts_paid_for(tmp_path: Path) -> None:
    answers = {
        "one/a": [error("timeout", tokens=100, cost="0.10")],
        "two/b": [error("invalid_request", retryable=False)],
    }
    _, ended = await Models(tmp_path, answers).call()
    fact, answer, _ = told(ended)
    assert (answer.outcome, answer.usage, answer.cost_usd) == (Outcome.FAILED, spent(100), Decimal("0.10"))
    assert (fact.usage, fact.cost_usd, fact.model) == (spent(100), Decimal("0.10"), "two/b")


async def test_the_next_claim_goes_on_from_what_the_one_before_has_tried(tmp_path: Path) -> None:
    first = Models(tmp_path, {"one/a": [error("timeout", tokens=100, cost="0.10")], "two/b": [error("overloaded")]})
    work, _ = await first.call()
    second = Models(tmp_path, {"one/a": [reply("fine", tokens=20, cost="0.02")], "two/b": []})
    _, ended = await second.call(claim=2, memo=work.memo)
    fact, answer, switches = told(ended)
    assert (fact.attempt, fact.tries, fact.cost_usd) == (2, 3, Decimal("0.12"))
    assert answer.usage == spent(100) + spent(20)
    assert switches == [("one/a", "two/b", "timeout")]


async def test_a_price_that_is_not_known_hides_none_that_is(tmp_path: Path) -> None:
    answers = {"one/a": [error("timeout", tokens=100)], "two/b": [reply("fine", tokens=20, cost="0.02")]}
    _, ended = await Models(tmp_path, answers).call()
    fact, _, _ = told(ended)
    assert fact.cost_usd == Decimal("0.02")
    assert fact.attempts is not None
    assert fact.attempts[0].cost_usd is None
