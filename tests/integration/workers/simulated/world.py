"""Everything that runs, and everything that can happen to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import SimpleNamespace
from typing import Any
from uuid import UUID

from codeagent import clock
from codeagent.agent.tools import NAMES
from codeagent.broker.delivery import Delivery
from codeagent.broker.lanes import Lanes
from codeagent.broker.topics import (
    AGENT_WORKER,
    PROVIDER_COMMANDS,
    PROVIDER_EVENTS,
    PROVIDER_WORKER,
    RUN_COMMANDS,
    RUN_EVENTS,
    SANDBOX_COMMANDS,
    SANDBOX_EVENTS,
    SANDBOX_WORKER,
)
from codeagent.errors import OutcomeUnknown
from codeagent.eventlog.accept import SubmissionLedger
from codeagent.eventlog.database import Database, Row
from codeagent.eventlog.effects import EffectsLedger, OutboxRow
from codeagent.eventlog.log import EventLog
from codeagent.eventlog.sweep import Sweeper
from codeagent.messages import commands, events
from codeagent.messages.catalog import encode_data
from codeagent.messages.envelope import Headers, Payload, to_headers
from codeagent.messages.ids import derived_uuid, run_stream
from codeagent.messages.values import (
    AgentDefinition,
    ApprovalDecision,
    ApprovalPolicy,
    Delegate,
    Dependencies,
    RunLimits,
)
from codeagent.providers.breaker import Breaker
from codeagent.providers.retry import ResilientProvider, RetryPolicy
from codeagent.relay.outbox import OutboxPublisher
from codeagent.relay.sweeps import SweepLoop
from codeagent.workers.bounds import Bounds
from codeagent.workers.effect import EffectLoop, EffectPolicy, Performer
from codeagent.workers.provider import ProviderPerformer
from codeagent.workers.sandbox import SandboxPerformer
from codeagent.workers.step import StepLoop
from tests.integration.workers.simulated.claims import Claims
from tests.integration.workers.simulated.frozen_time import FrozenLoop, settled
from tests.integration.workers.simulated.gates import Gate, Process, Wire, owned_tasks
from tests.integration.workers.simulated.performers import Blobs, LineDriver, LineModel, Watched, text_of, unwatched
from tests.integration.workers.system import DIGEST, TENANT, Bench

PIP = Dependencies(install="pip install -r requirements.txt", lock_files=("requirements.txt",))
LEASE_SECONDS = 30.0
MAX_ATTEMPTS = 4
READERS = {
    RUN_COMMANDS: AGENT_WORKER,
    PROVIDER_EVENTS: AGENT_WORKER,
    SANDBOX_EVENTS: AGENT_WORKER,
    PROVIDER_COMMANDS: PROVIDER_WORKER,
    SANDBOX_COMMANDS: SANDBOX_WORKER,
}
ROLES = (AGENT_WORKER, AGENT_WORKER, PROVIDER_WORKER, PROVIDER_WORKER, SANDBOX_WORKER, SANDBOX_WORKER, "relay")
"""Two of each worker: what one leaves undone, the other takes, and both may hold the same run."""


@dataclass(frozen=True, slots=True)
class Record:
    """A record that the broker has and somebody may yet receive, in any order, any number of times."""

    topic: str
    key: str
    headers: Headers
    value: bytes

    def __str__(self) -> str:
        name = dict(self.headers).get("ce_type", b"?").decode().removeprefix("io.codeagent.")
        return f"{name} of {self.key[-4:]}"


class _Sender:
    """The broker as a process sees it."""

    ready = True

    def __init__(self, process: Process, world: World) -> None:
        self._process = process
        self._world = world

    async def send_all(self, topic: str, key: str, records: Sequence[tuple[Headers, bytes]]) -> None:
        async def send() -> None:
            self._world.sent(Record(topic, key, headers, value) for headers, value in records)

        await self._process.pass_gate("send", f"send to {topic}", send, _unconfirmed)

    async def send(self, topic: str, key: str, headers: Headers, value: bytes) -> None:
        await self.send_all(topic, key, [(headers, value)])


def _lead(approvals: ApprovalPolicy | None) -> AgentDefinition:
    """An agent that may hand work to one other, of which people are asked the same."""
    helper = Delegate(name="helper", version=1, model="test/m", limits=RunLimits(), approvals=approvals)
    return AgentDefinition(id="agt_lead", digest=DIGEST, instructions="", tools=NAMES, delegates=(helper,))


def _unconfirmed() -> Exception:
    return OutcomeUnknown("the broker did not confirm in time")


@dataclass
class Slot:
    """A place where a process of one role runs. When it dies, another is started there."""

    role: str
    process: Process
    receive: Lanes | None = None
    effects: EffectLoop | None = None


class World:
    """Two of each worker and a relay. `lines`: how many commands each run's model asks for, with so many `reads` at once
    after each; then it submits, or hangs until it is stopped. `installs`: the runs have dependencies, without which no
    command may begin. `delegates`: each run first has another one do the same."""

    def __init__(
        self,
        database: Database,
        lines: int,
        reads: int = 0,
        *,
        hangs: bool = False,
        installs: bool = False,
        delegates: bool = False,
    ) -> None:
        self.database = database
        self.delegates = delegates
        self.installs = installs
        self.lines = lines
        self.reads = reads
        self.hangs = hangs
        self.gates: list[Gate] = []
        self.records: list[Record] = []
        self.announced: dict[str, set[int]] = {}
        self.faults: list[str] = []
        self.runs: list[Bench] = []
        self.children: dict[str, Bench] = {}
        """Runs that the runs have started, once the broker has heard of them."""
        self._submits: dict[str, Payload] = {}
        self.slots: list[Slot] = []
        self._blobs = Blobs()
        self._claims = Claims(LEASE_SECONDS, self.faults.append)
        self._born = 0
        self.delivered = 0
        loop = asyncio.get_running_loop()
        assert isinstance(loop, FrozenLoop)
        self._loop = loop
        self._begun = loop.time()

    async def start(self) -> None:
        self._loop.set_task_factory(owned_tasks)
        # Not by DELETE: rows come in the order in which they lie in a table.
        await self.database.write("TRUNCATE events, outbox, effects RESTART IDENTITY")
        await self.database.write("ALTER SEQUENCE simulated.reading RESTART")
        await self.advance(0)
        self.slots = [self._born_in(role) for role in ROLES]
        await settled()

    async def stop(self) -> None:
        for slot in self.slots:
            slot.process.kill()
        await settled()
        self._loop.set_task_factory(None)

    # What runs

    def _born_in(self, role: str) -> Slot:
        self._born += 1
        process = Process(f"{role} {self._born}", self.gates)
        wire = Wire(process, self.database, self._executed)
        sender = _Sender(process, self)
        outbox = OutboxPublisher(sender, Sweeper(wire), EventLog(wire))  # type: ignore[arg-type]  # a broker in memory
        if role == "relay":
            sweeps = SweepLoop(outbox, Sweeper(wire), every_seconds=1.0, measure=False)
            process.run(sweeps.start())
            return Slot(role, process)
        if role == AGENT_WORKER:
            steps = StepLoop(wire, EventLog(wire), outbox, events_topic=RUN_EVENTS)
            delivery = Delivery(sender, group=role, handle=steps.handle, give_up=steps.give_up)  # type: ignore[arg-type]
            return Slot(role, process, Lanes(delivery))
        effects = self._effects(role, process, wire, outbox)
        process.run(effects.start())
        delivery = Delivery(sender, group=role, handle=effects.handle)  # type: ignore[arg-type]
        return Slot(role, process, Lanes(delivery), effects)

    def _executed(self, query: str, arguments: tuple[Any, ...], rows: Sequence[Row]) -> None:
        self._claims.executed(query, arguments, rows, self._loop.time())

    def _effects(self, role: str, process: Process, wire: Wire, outbox: OutboxPublisher) -> EffectLoop:
        performer = self._performer(role, process, wire)
        ledger = EffectsLedger(
            wire,
            kind=performer.kind,
            owner=process.name,
            lease=timedelta(seconds=LEASE_SECONDS),
            durable_claims=role == SANDBOX_WORKER,
            new_token=clock.new_uuid,
        )
        policy = EffectPolicy(slots=2, lease_seconds=LEASE_SECONDS, max_attempts=MAX_ATTEMPTS)
        return EffectLoop(wire, ledger, performer, outbox, policy)

    def _performer(self, role: str, process: Process, wire: Wire) -> Performer:
        accuse = self.faults.append
        if role == PROVIDER_WORKER:
            lines = LineModel(process, self.lines, self.reads, hangs=self.hangs)
            once = RetryPolicy(max_attempts=1)  # what is tried again, the schedule says
            model = ResilientProvider(lines, Breaker(lines.name, failures_to_open=1_000_000), once)
            calls = ProviderPerformer(
                EventLog(wire), self._blobs, lambda name: (model, name), unwatched, answers_topic=PROVIDER_EVENTS
            )
            return Watched(calls, accuse)
        operations = SandboxPerformer(
            LineDriver(process, accuse, installs=self.installs),
            self._blobs,
            unwatched,
            answers_topic=SANDBOX_EVENTS,
            limits=Bounds(),
            most_workspaces=1,
        )
        return Watched(operations, accuse)

    # What can happen

    async def submit(self, deadline_seconds: int, approvals: ApprovalPolicy | None = None) -> None:
        """A client's order, safe in the outbox before it is answered. The broker may lose its copy of it."""
        run = Bench(self.database)
        self.runs.append(run)
        dependencies = PIP if self.installs else None
        definition = _lead(approvals) if self.delegates else None
        submit = run.submit(approvals, dependencies, definition, deadline_seconds=deadline_seconds)
        self._submits[run.run_id] = submit.data
        await self.submit_again(run)

    async def submit_again(self, run: Bench) -> None:
        await self._order(run, self._submits[run.run_id])

    async def cancel(self, run: Bench) -> None:
        await self._order(run, commands.CancelRun(run_id=run.run_id))

    async def answer(
        self, run: Bench, decision: ApprovalDecision, person: str, comment: str = "", *, lost: bool = False
    ) -> bool:
        """A person answers what the run asks now; the broker may lose it. False where it asks nothing."""
        head = await EventLog(self.database).head(run_stream(run.run_id))
        newest = await EventLog(self.database).read_stream(run_stream(run.run_id), head - 1) if head else ()
        asked = newest[0].decode() if newest else None
        if not isinstance(asked, events.InputRequired):
            return False
        approval_id = asked.request.approval_id
        command = commands.AnswerApproval(
            run_id=run.run_id, approval_id=approval_id, decision=decision, comment=comment
        )
        await self._order(run, command, derived_uuid(run.run_id, approval_id, person), lost=lost)
        return True

    async def _order(self, run: Bench, command: Payload, command_id: UUID | None = None, *, lost: bool = False) -> None:
        envelope = run.message(command, command_id).envelope
        await SubmissionLedger(self.database).enqueue(OutboxRow(envelope.id, RUN_COMMANDS, envelope, command))
        if not lost:
            self.records.append(Record(RUN_COMMANDS, run.run_id, to_headers(envelope), encode_data(command)))

    async def lines_at(self, checkpoint: str) -> list[str]:
        """The files as a checkpoint has them."""
        return text_of(await self._blobs.read(TENANT, checkpoint)).decode().splitlines() if checkpoint else []

    def sent(self, records: Iterable[Record]) -> None:
        for record in records:
            if record.topic == RUN_EVENTS:
                sequence = int(dict(record.headers)["ce_sequence"])
                self.announced.setdefault(record.key, set()).add(sequence)
            elif record.topic in READERS:
                self.records.append(record)
                self._noticed(record)
            else:
                self.faults.append(f"dead letter: {record}")

    def _noticed(self, record: Record) -> None:
        if str(record).startswith("run.submit") and record.key not in {run.run_id for run in self.runs}:
            self.children.setdefault(record.key, Bench(self.database, run_id=record.key))

    @property
    def everyone(self) -> list[Bench]:
        return [*self.runs, *self.children.values()]

    async def deliver(self, record: Record, slot: Slot) -> None:
        assert slot.receive is not None
        self.delivered += 1
        consumed = SimpleNamespace(
            topic=record.topic,
            partition=0,
            offset=self.delivered,
            timestamp=0,
            key=record.key.encode(),
            headers=tuple(record.headers),
            value=record.value,
        )
        slot.process.run(slot.receive.dispatch([consumed]))  # type: ignore[list-item]  # what is looked at of a record
        await settled()

    async def kill(self, slot: Slot) -> None:
        """SIGKILL, and a new process in its place. What it has asked of PostgreSQL or the broker may still arrive."""
        slot.process.kill()
        await settled()
        self.slots[self.slots.index(slot)] = self._born_in(slot.role)
        await settled()

    async def drain(self, slot: Slot) -> None:
        """SIGTERM, then a new process in its place."""
        assert slot.effects is not None
        draining = slot.process.run(slot.effects.drain(0.1))
        self._start_over_after(draining, slot)
        await settled()

    def _start_over_after(self, draining: asyncio.Task[None], slot: Slot) -> None:
        def start_over(_: asyncio.Task[None]) -> None:
            if slot in self.slots and slot.process.alive:
                slot.process.kill()
                self.slots[self.slots.index(slot)] = self._born_in(slot.role)

        draining.add_done_callback(start_over)

    async def notify(self, slot: Slot, run: Bench) -> None:
        """PostgreSQL's notice that a run's effects should stop. The others may never come."""
        assert slot.effects is not None
        effects = slot.effects

        async def notified() -> None:
            effects.notified(run.run_id)

        slot.process.run(notified())
        await settled()

    def seconds(self) -> float:
        """Since the start."""
        return self._loop.time() - self._begun

    async def advance(self, seconds: float) -> None:
        """Time passes for everyone."""
        self._loop.advance(seconds)
        await self.database.write("UPDATE simulated.clock SET at = $1", clock.now())
        await settled()

    async def pass_through(self, gate: Gate, how: Callable[[], object]) -> None:
        """Takes a gate away and does with it what `how` says."""
        self.gates.remove(gate)
        result = how()
        if asyncio.iscoroutine(result):
            await result
        await settled()

    def readers(self, record: Record) -> list[Slot]:
        return [slot for slot in self.slots if slot.role == READERS[record.topic] and not slot.process.paused]

    def ready(self) -> list[Gate | Record]:
        """What can go on now: statements, sendings and work of processes that are not paused, and records."""
        gates = [gate for gate in self.gates if not (gate.owner.paused and gate.owner.alive)]
        return [*gates, *(record for record in self.records if self.readers(record))]
