"""A run on its way through a real adapter: decided by the agent, asked over HTTP, kept nowhere but here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

from codeagent import clock
from codeagent.artifacts.store import LocalArtifactStore
from codeagent.eventlog.effects import Claim
from codeagent.eventlog.log import EventLog
from codeagent.messages.commands import GenerateReply
from codeagent.messages.envelope import Envelope, Event, Message
from codeagent.messages.results import ProviderResult
from codeagent.messages.values import Outcome
from codeagent.providers.breaker import Breaker
from codeagent.providers.protocol import Provider
from codeagent.providers.retry import ResilientProvider, RetryPolicy
from codeagent.workers.effect import Work
from codeagent.workers.provider import ProviderPerformer
from tests.unit.agent.scenario import RUN, Scenario

TENANT = "ten_a"


@dataclass(frozen=True)
class _Stored:
    event: Event
    tenant_id: str = TENANT

    def decode(self) -> Event:
        return self.event


class _Log:
    """The run's stream, as its scenario has it."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario

    async def read_stream(self, _stream: str, after: int = 0, limit: int = 500) -> Sequence[_Stored]:
        return [_Stored(event) for event in self._scenario.events[after : after + limit]]


async def _unwatched(_key: str, _value: bytes) -> None:
    return None


@dataclass
class Loop:
    """`think` has the model asked and the run decide on what came of it."""

    provider: Provider
    store: LocalArtifactStore
    scenario: Scenario = field(default_factory=Scenario)

    def __post_init__(self) -> None:
        guarded = ResilientProvider(self.provider, Breaker(self.provider.name), RetryPolicy(first_wait_seconds=0.01))
        log = cast(EventLog, _Log(self.scenario))
        self._performer = ProviderPerformer(
            log, self.store, lambda _: (guarded, "model-x"), _unwatched, answers_topic="t"
        )
        self.scenario.prepared()

    async def think(self) -> ProviderResult:
        command = self.scenario.open_effect.command
        assert isinstance(command, GenerateReply)
        envelope = Envelope(command.effect_id, command.NAME, 1, "/test", clock.now(), TENANT, RUN, command.effect_id)
        work = Work(Message(envelope, command), Claim(command.effect_id, clock.new_uuid(), 1, False))
        try:
            ended = await self._performer.perform(work)
        except Exception as error:
            ended = self._performer.ended(work, Outcome.FAILED, error)
        assert isinstance(ended.answer, ProviderResult)
        self.scenario.when(ended.answer)
        return ended.answer
