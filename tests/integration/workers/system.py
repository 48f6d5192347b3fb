"""Workers in one process on a real database, without a broker: messages go by hand, and may be lost or doubled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

from codeagent import clock
from codeagent.broker.topics import RUN_EVENTS
from codeagent.eventlog.database import Database
from codeagent.eventlog.effects import EffectsLedger, OutboxRow
from codeagent.eventlog.log import EventLog
from codeagent.eventlog.stored import StoredEvent
from codeagent.messages import commands, results
from codeagent.messages.calls import CallEnded
from codeagent.messages.conversation import AssistantMessage, ToolCall, Usage
from codeagent.messages.envelope import Envelope, Message, Payload
from codeagent.messages.ids import call_stream, derived_uuid, run_stream, typed_id
from codeagent.messages.values import AgentDefinition, ApprovalPolicy, ArchiveSource, Dependencies, Outcome, RunLimits
from codeagent.workers.effect import EffectLoop, EffectPolicy, Work
from codeagent.workers.ended import Ended
from codeagent.workers.step import StepLoop

DIGEST = "sha256:" + "a" * 64
TENANT = "ten_t"


@dataclass
class Mailbox:
    """What workers hand over: kept for the test to deliver, lose or repeat."""

    announced: list[int] = field(default_factory=list)
    commands: list[Message] = field(default_factory=list)
    answers: list[OutboxRow] = field(default_factory=list)

    def events(self, row_id: UUID, key: str, events: list[StoredEvent]) -> None:
        self.announced += [event.version for event in events]

    def effect(self, kind: str, message: Message) -> None:
        self.commands.append(message)

    def answer(self, row: OutboxRow) -> None:
        self.answers.append(row)


class Calls:
    """Performs model calls as the test says: an answer, an error, or nothing until told."""

    kind = "provider"
    answers_topic = "codeagent.provider.events.v1"

    def __init__(self, behave: object = None) -> None:
        self.behave = behave
        self.performed: list[int] = []

    async def perform(self, work: Work) -> Ended:
        self.performed.append(work.claim.attempt)
        if self.behave is not None:
            await self.behave(work)  # type: ignore[operator]  # an async callable
        return self.ended(work, Outcome.DONE, None)

    def ended(self, work: Work, outcome: Outcome, error: BaseException | None) -> Ended:
        effect_id, run_id = work.claim.effect_id, work.message.envelope.key
        fact = CallEnded(
            effect_id=effect_id,
            run_id=run_id,
            attempt=work.claim.attempt,
            outcome=outcome,
            model="m",
            usage=Usage(),
            duration_seconds=0.0,
        )
        done = outcome is Outcome.DONE
        answer = results.ProviderResult(
            effect_id=effect_id,
            run_id=run_id,
            attempt=work.claim.attempt,
            outcome=outcome,
            message=AssistantMessage(tool_calls=(ToolCall(id="c", name="shell", arguments='{"command": "ls"}'),))
            if done
            else None,
        )
        return Ended(call_stream(effect_id), fact, answer)


@dataclass
class Bench:
    """One database, any number of workers on it."""

    database: Database
    mailbox: Mailbox = field(default_factory=Mailbox)
    run_id: str = field(default_factory=lambda: typed_id("run", clock.new_uuid()))
    tenant_id: str = TENANT

    def agent(self) -> StepLoop:
        return StepLoop(self.database, EventLog(self.database), self.mailbox, events_topic=RUN_EVENTS)

    def provider(
        self,
        performer: Calls,
        *,
        lease: float = 30.0,
        slots: int = 4,
        attempts: int = 4,
        patience: float = 600.0,
        is_able: Callable[[], bool] = lambda: True,
    ) -> EffectLoop:
        ledger = EffectsLedger(
            self.database,
            kind="provider",
            owner=str(clock.new_uuid()),
            lease=timedelta(seconds=lease),
            durable_claims=False,
            new_token=clock.new_uuid,
        )
        policy = EffectPolicy(
            slots=slots, lease_seconds=lease, max_attempts=attempts, patience_seconds=patience, sweep_seconds=0.05
        )
        return EffectLoop(self.database, ledger, performer, self.mailbox, policy, is_able)

    def message(self, data: Payload, message_id: UUID | None = None) -> Message:
        envelope = Envelope(
            id=message_id or derived_uuid(self.run_id, data.NAME),
            name=data.NAME,
            version=1,
            source="/test",
            time=clock.now(),
            tenant_id=self.tenant_id,
            key=self.run_id,
            correlation_id=derived_uuid(self.run_id, "submit"),
        )
        return Message(envelope, data)

    def submit(
        self,
        approvals: ApprovalPolicy | None = None,
        dependencies: Dependencies | None = None,
        definition: AgentDefinition | None = None,
        **limits: object,
    ) -> Message:
        return self.message(
            commands.SubmitRun(
                run_id=self.run_id,
                task="t",
                source=ArchiveSource(digest=DIGEST),
                agent="coder",
                definition=definition,
                model="test/m",
                limits=RunLimits(**limits),
                approvals=approvals,
                fingerprint="f",
                dependencies=dependencies,
            )
        )

    def prepared(self) -> Message:
        command = self.mailbox.commands[-1].data
        assert isinstance(command, commands.ExecuteOperation)
        result = results.SandboxResult(
            effect_id=command.effect_id, run_id=self.run_id, attempt=1, outcome=Outcome.DONE, base=DIGEST, reason="ok"
        )
        return self.message(result, clock.new_uuid())

    async def thinking(self, agent: StepLoop) -> Message:
        """Brings the run to its first model call; returns the call's command."""
        await agent.handle(self.submit())
        await agent.handle(self.prepared())
        return self.mailbox.commands[-1]

    async def names(self) -> list[str]:
        stored = await EventLog(self.database).read_stream(run_stream(self.run_id))
        assert [event.version for event in stored] == list(range(1, len(stored) + 1))
        return [event.type for event in stored]

    async def rows(self, table: str) -> int:
        return int((await self.database.fetch(f"SELECT count(*) FROM {table}"))[0][0])


def answered(row: OutboxRow) -> Message:
    return Message(row.envelope, row.data)
