"""The log of an installation that has been at work for some weeks, as long as one likes: many runs at once, of several
tenants, projects, sessions, people and versions of agents, and what people did beside them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import islice
from random import Random

from codeagent import clock
from codeagent.eventlog.stored import StoredEvent, prepare
from codeagent.messages import events
from codeagent.messages.calls import CallEnded, ModelAttempt
from codeagent.messages.conversation import FinishReason, Usage
from codeagent.messages.envelope import Event
from codeagent.messages.ids import call_stream, exec_stream, parse_typed_id, run_stream, typed_id
from codeagent.messages.key_events import ApiKeyCreated, ApiKeyRevoked
from codeagent.messages.values import ApprovalDecision, ApprovalRequest, Outcome
from tests.conftest import SEED
from tests.integration.projections.logs import DAY, execution, noon, submitted

AT_ONCE = 40
"""Runs that are at work at the same time."""
_TENANTS = ("ten_amber", "ten_birch", "ten_cedar", "ten_dune")
_MODELS = ("acme/large", "acme/small", "other/medium")
_WEEKS = timedelta(days=21)
_RUNS_A_DAY = 2_000


@dataclass(frozen=True, slots=True)
class Scene:
    """Whose a run is, and what it works with."""

    run_id: str
    tenant: str
    person: str
    project: str | None
    session: str | None
    agent: str
    version: int
    model: str


@dataclass(frozen=True, slots=True)
class Fact:
    """An event, where it stands, and when and in whose name it happened."""

    stream_id: str
    version: int
    event: Event
    tenant: str
    person: str
    run_id: str | None
    at: datetime


def history(count: int) -> Iterator[StoredEvent]:
    """So many events, in the order in which they are appended. The last runs are at work still."""
    return map(_stored, islice(_endless(Random(SEED)), count))


def _endless(chance: Random) -> Iterator[Fact]:
    runs: list[Iterator[Fact]] = []
    number = 0
    while True:
        while len(runs) < AT_ONCE:
            number += 1
            runs.append(_run(chance, _scene(chance, number), _begins(number)))
            if number % 10 == 0:
                yield from _key(chance, _begins(number))
        place = chance.randrange(len(runs))
        fact = next(runs[place], None)
        if fact is None:
            runs.pop(place)
        else:
            yield fact


def _begins(number: int) -> datetime:
    """Over three weeks again and again, so that the sums of a day grow."""
    return noon(DAY) - _WEEKS + timedelta(days=number / _RUNS_A_DAY) % _WEEKS


def _scene(chance: Random, number: int) -> Scene:
    tenant = chance.choice(_TENANTS)
    mark = tenant[-1]
    project = chance.choice((None, f"prj_{mark}1", f"prj_{mark}2", f"prj_{mark}3"))
    return Scene(
        run_id=typed_id("run", clock.new_uuid()),
        tenant=tenant,
        person=f"usr_{mark}{chance.randrange(12)}",
        project=project,
        session=f"ses_{mark}{number // 7}" if chance.random() < 0.5 else None,
        agent=chance.choice(("coder", "reviewer", "mender")),
        version=chance.randrange(1, 5),
        model=chance.choice(_MODELS),
    )


def _run(chance: Random, scene: Scene, begins: datetime) -> Iterator[Fact]:
    """A run from its submission to its end."""
    order = submitted(
        scene.run_id, scene.person, scene.model, Decimal(5) if chance.random() < 0.5 else None, agent=scene.agent,
        agent_version=scene.version, project_id=scene.project, session_id=scene.session,
    )  # fmt: skip
    at, version = begins, 0
    for event, effect in _story(chance, scene, order):
        version += effect is None
        stream, place = (run_stream(scene.run_id), version) if effect is None else (effect, 1)
        yield Fact(stream, place, event, scene.tenant, scene.person, scene.run_id, at)
        at += timedelta(seconds=chance.random() * 10)


Told = tuple[Event, str | None]
"""An event, and its stream where that is not the run's."""


def _story(chance: Random, scene: Scene, order: Event) -> Iterator[Told]:
    yield order, None
    if chance.random() < 0.03:
        yield events.RunRejected(status_reason="quota_exceeded"), None
        return
    yield events.RunStarted(), None
    yield from _sandbox(scene, 0, "prepare")
    for step in range(1, chance.randrange(2, 6)):
        yield from _thought(chance, scene, step)
        if chance.random() < 0.1:
            yield from _asked(chance, scene)
        if chance.random() < 0.05:
            failed = events.ToolCallFailed(
                tool_call_id="c", name="shell", step=step, code="invalid_arguments", error=""
            )
            yield failed, None
        else:
            yield from _sandbox(scene, step, "tool")
    if chance.random() < 0.04:
        yield events.CancelRequested(principal=scene.person), None
        yield events.RunCanceled(status_reason="requested"), None
    elif chance.random() < 0.1:
        yield events.RunFailed(status_reason=chance.choice(("max_turns_exceeded", "worker_lost"))), None
    else:
        yield events.RunCompleted(message=f"see sha256:{chance.randbytes(32).hex()}"), None


def _thought(chance: Random, scene: Scene, step: int) -> Iterator[Told]:
    """A model call and what it has brought; now and then it took two attempts, of which one is not priced."""
    effect, used = clock.new_uuid(), Usage(input_tokens=chance.randrange(9_000), output_tokens=chance.randrange(900))
    cost = Decimal(chance.randrange(10**7)) / 10**8
    vendor, _, name = scene.model.partition("/")
    attempts = [ModelAttempt(provider=vendor, model=name, usage=used, cost_usd=cost, seconds=1.0)]
    if chance.random() < 0.1:
        attempts.insert(0, ModelAttempt(provider=vendor, model=name, reason="timeout", usage=used, seconds=9.0))
    yield events.StepStarted(step=step, name="think", effect_id=effect), None
    ended = CallEnded(
        effect_id=effect, run_id=scene.run_id, attempt=1, outcome=Outcome.DONE, model=scene.model, usage=used,
        cost_usd=cost, duration_seconds=1.5, attempts=tuple(attempts),
    )  # fmt: skip
    yield ended, call_stream(effect)
    message = events.MessageCompleted(
        effect_id=effect, step=step, attempt=1, text="", finish_reason=FinishReason.TOOL_CALLS, model=scene.model,
        usage=used, cost_usd=cost,
    )  # fmt: skip
    yield message, None


def _sandbox(scene: Scene, step: int, operation: str) -> Iterator[Told]:
    """An operation in a sandbox, and what the run says of it."""
    ended = execution(scene.run_id).model_copy(update={"operation": operation})
    if operation == "prepare":
        yield events.StepStarted(step=step, name="prepare", effect_id=ended.effect_id), None
        yield ended, exec_stream(ended.effect_id)
        yield events.StepCompleted(step=step, name="prepare"), None
        return
    call: dict[str, object] = {"tool_call_id": "c", "name": "shell", "step": step, "effect_id": ended.effect_id}
    yield events.ToolCallStarted.model_validate({**call, "arguments_digest": ""}), None
    yield ended, exec_stream(ended.effect_id)
    done = {**call, "attempt": 1, "output": "ok", "reason": "exit", "exit_code": 0, "checkpoint": "k"}
    yield events.ToolCallCompleted.model_validate(done), None


def _asked(chance: Random, scene: Scene) -> Iterator[Told]:
    """A question to a person, and the answer."""
    request = ApprovalRequest(
        approval_id="apr", tool_call_id="c", tool="shell", arguments="{}", arguments_digest="", reason="",
        requested_at=noon(DAY), expires_at=noon(DAY),
    )  # fmt: skip
    decision = chance.choice((ApprovalDecision.ALLOW_ONCE, ApprovalDecision.REJECT))
    yield events.InputRequired(request=request), None
    yield events.InputReceived(approval_id="apr", decision=decision, principal=scene.person), None
    yield events.RunResumed(deadline_at=noon(DAY)), None


def _key(chance: Random, at: datetime) -> Iterator[Fact]:
    """Somebody makes a key, and revokes it."""
    tenant, key_id = chance.choice(_TENANTS), typed_id("key", clock.new_uuid())
    person, stream = f"usr_{tenant[-1]}0", f"api_key-{key_id}"
    made = ApiKeyCreated(key_id=key_id, principal=person, name="ci", scopes=("runs:read",), expires_at=noon(DAY))
    for version, event in enumerate((made, ApiKeyRevoked(key_id=key_id)), 1):
        yield Fact(stream, version, event, tenant, person, None, at)


def _stored(fact: Fact) -> StoredEvent:
    """As the log keeps it, hashed."""
    told = {"authtype": "user", "authid": fact.person}
    if fact.run_id is None:
        told["correlationid"] = str(clock.new_uuid())
    else:
        told |= {"runid": fact.run_id, "correlationid": str(parse_typed_id("run", fact.run_id))}
    return prepare(
        fact.event,
        stream_id=fact.stream_id,
        version=fact.version,
        event_id=clock.new_uuid(),
        tenant_id=fact.tenant,
        occurred_at=fact.at,
        metadata=told,
    )
