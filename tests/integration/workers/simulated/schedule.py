"""Who goes on, who waits, who dies: drawn by the test at first, then in order until everything has come to rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from codeagent.messages.values import ApprovalDecision
from tests.integration.workers.simulated.checks import check_ledger, ended
from tests.integration.workers.simulated.gates import Gate
from tests.integration.workers.simulated.world import LEASE_SECONDS, Record, World
from tests.integration.workers.system import Bench


class Draws:
    """Numbers drawn from a few bytes. Zero, which all of them are once the bytes are used up, is a good day."""

    def __init__(self, entropy: bytes) -> None:
        self._left = int.from_bytes(entropy)

    def below(self, bound: int) -> int:
        self._left, number = divmod(self._left, bound)
        return number


TAKEN_OVER_WITHIN_SECONDS = 35.0
"""From when on nothing bad happens any more: a lease, or the time between two sendings, and the next look."""

PEOPLE = ("ada", "bob")
ALLOWS = (ApprovalDecision.ALLOW_ONCE, ApprovalDecision.ALLOW_ONCE, ApprovalDecision.ALLOW_ALWAYS)
ANSWERED_WITHIN_SECONDS = 3
"""Longer than it takes until a lost message is sent again."""
ROUNDS = frozenset({"claim what is due", "take due messages", "take due timers"})
MOST_TURNS = 2_000
"""Far more than any run needs without time passing: beyond it, something turns in circles."""


@dataclass
class Schedule:
    """Moves a world, one event at a time. `trace` tells what happened."""

    world: World
    may_cancel: bool
    asks: bool = False
    """Whether runs wait for people before they run a command."""

    def __post_init__(self) -> None:
        self.trace: list[str] = []
        self._draws = Draws(b"")
        self._what_happens = [
            (68, self._go_on),
            (80, self._people_answer if self.asks else self._go_on),
            (87, self._time_passes),
            (90, self._somebody_dies),
            (92, self._somebody_stops_or_goes_on),
            (95, self._somebody_oversleeps),
            (96, self._somebody_is_asked_to_stop),
            (97, self._a_notice_arrives),
            (98, self._submit_again),
            (100, self._cancel if self.may_cancel else self._go_on),
        ]

    async def event(self, entropy: bytes) -> None:
        """One thing that happens, as drawn."""
        self._draws = Draws(entropy)
        number = self._draws.below(100)
        happens = next(happens for below, happens in self._what_happens if number < below)
        await happens()

    async def come_to_rest(self, within_seconds: float) -> None:
        """Everyone who is stopped goes on, and nothing bad happens any more. Raises `AssertionError` if it lasts."""
        for slot in self.world.slots:
            slot.process.paused = False
        seconds = 0.0
        await self._all_in_order()
        await check_ledger(self.world)
        while not await ended(self.world):
            if seconds % ANSWERED_WITHIN_SECONDS == 0:
                await self.people_act()
            await self.world.advance(1.0)
            seconds += 1.0
            await self._all_in_order()
            await check_ledger(self.world)
            assert seconds <= within_seconds, "it takes longer than promised until everything is at rest"

    async def people_act(self) -> None:
        """What runs ask is answered by two people. What the second says is lost at first, and comes when the next question may be waiting."""
        for run in self.world.everyone:
            for person in PEOPLE:
                await self.world.answer(run, ApprovalDecision.ALLOW_ONCE, person, lost=person != PEOPLE[0])

    async def _all_in_order(self) -> None:
        """Until everyone waits for time."""
        turns = 0
        while ready := self.world.ready():
            turns += 1
            assert turns < MOST_TURNS, f"no end in sight; waiting: {[str(item) for item in ready]}"
            await self._in_order(ready[0])

    async def _in_order(self, item: Gate | Record) -> None:
        if isinstance(item, Gate):
            await self.world.pass_through(item, item.open)
        else:
            self.world.records.remove(item)
            readers = self.world.readers(item)
            await self.world.deliver(item, readers[self.world.delivered % len(readers)])

    async def _go_on(self) -> None:
        ready = self.world.ready()
        if self._draws.below(2) == 1:
            # Rounds that find nothing are most of what waits, and the least of what matters.
            ready = [item for item in ready if not (isinstance(item, Gate) and item.name in ROUNDS)] or ready
        if not ready:
            await self._time_passes()
            return
        item = ready[self._draws.below(len(ready))]
        if isinstance(item, Gate):
            await self._gate(item)
        else:
            await self._record(item)

    async def _people_answer(self) -> None:
        """What a run asks, if it does: one of two people, or both at once. The broker may lose what they say."""
        run = self._run(self.world.everyone)
        for person in PEOPLE if self._draws.below(2) else PEOPLE[:1]:
            decision = ALLOWS[self._draws.below(len(ALLOWS))]
            if not await self.world.answer(run, decision, person):
                await self._go_on()
                return
            self._tell(f"{person} answers {run.run_id[-4:]} with {decision}")

    async def _gate(self, gate: Gate) -> None:
        fate = self._draws.below(30)
        world = self.world
        if fate == 24:
            self._tell(f"{gate}, which fails")
            await world.pass_through(gate, gate.fail)
        elif fate == 25:
            self._tell(f"{gate}, which is done and reported as failed")
            await world.pass_through(gate, gate.open_and_fail)
        elif fate in {26, 27} and gate.owner.alive:
            self._tell(f"{gate}, {'before' if fate == 26 else 'after'} which it dies")
            await self._dies_at(gate, done=fate == 27)
        elif fate >= 28 and gate.forget is not None:
            self._tell(f"{gate}, which the server forgets when it dies")
            forget = gate.forget
            await world.pass_through(gate, lambda: gate.open(forget))
        else:
            self._tell(f"{gate}")
            await world.pass_through(gate, gate.open)

    async def _dies_at(self, gate: Gate, *, done: bool) -> None:
        slot = next(slot for slot in self.world.slots if slot.process is gate.owner)
        self.world.gates.remove(gate)
        if done:
            await gate.open_unseen()
        await self.world.kill(slot)

    async def _record(self, record: Record) -> None:
        fate = self._draws.below(10)
        if fate == 8:
            self._tell(f"{record} is lost")
            self.world.records.remove(record)
            return
        if fate < 8:
            self.world.records.remove(record)
        readers = self.world.readers(record)
        slot = readers[self._draws.below(len(readers))]
        self._tell(f"{slot.process.name} receives {record}{'' if fate < 8 else ', which will come again'}")
        await self.world.deliver(record, slot)

    async def _time_passes(self) -> None:
        seconds = (1.25, 4.0, 11.0, 31.0, 31.0, 61.0)[self._draws.below(6)]
        self._tell(f"{seconds} s pass")
        await self.world.advance(seconds)

    async def _somebody_dies(self) -> None:
        slot = self.world.slots[self._draws.below(len(self.world.slots))]
        self._tell(f"{slot.process.name} dies")
        await self.world.kill(slot)

    async def _somebody_stops_or_goes_on(self) -> None:
        slot = self.world.slots[self._draws.below(len(self.world.slots))]
        slot.process.paused = not slot.process.paused
        self._tell(f"{slot.process.name} {'stops' if slot.process.paused else 'goes on'}")

    async def _somebody_oversleeps(self) -> None:
        """A worker stands still beyond its lease, and is the first to look for what is due when it goes on."""
        slots = [slot for slot in self.world.slots if slot.effects is not None]
        busy = {gate.owner for gate in self.world.gates if gate.kind == "work"}
        slots = [slot for slot in slots if slot.process in busy] or slots
        slot = slots[self._draws.below(len(slots))]
        self._tell(f"{slot.process.name} oversleeps")
        await self.world.advance(LEASE_SECONDS + 1.0)
        for gate in [gate for gate in self.world.gates if gate.owner is slot.process]:
            if gate.name == "claim what is due":
                await self.world.pass_through(gate, gate.open)

    async def _somebody_is_asked_to_stop(self) -> None:
        slots = [slot for slot in self.world.slots if slot.effects is not None]
        slot = slots[self._draws.below(len(slots))]
        self._tell(f"{slot.process.name} is asked to stop")
        await self.world.drain(slot)

    async def _a_notice_arrives(self) -> None:
        slots = [slot for slot in self.world.slots if slot.effects is not None]
        slot = slots[self._draws.below(len(slots))]
        run = self._run(self.world.everyone)
        self._tell(f"{slot.process.name} hears that {run.run_id[-4:]} is canceled")
        await self.world.notify(slot, run)

    async def _submit_again(self) -> None:
        run = self._run()
        self._tell(f"{run.run_id[-4:]} is submitted again")
        await self.world.submit_again(run)

    async def _cancel(self) -> None:
        run = self._run(self.world.everyone)
        self._tell(f"{run.run_id[-4:]} is canceled")
        await self.world.cancel(run)

    def _run(self, among: Sequence[Bench] = ()) -> Bench:
        runs = among or self.world.runs
        return runs[self._draws.below(len(runs))]

    def _tell(self, what: str) -> None:
        self.trace.append(f"{self.world.seconds():7.1f} s  {what}")
