"""Gates: where a process waits for the schedule, and what the schedule can do to whoever waits there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn

from codeagent.errors import CodeAgentError, OutcomeUnknown, Unavailable
from codeagent.eventlog.database import Database, Row

OWNER: ContextVar[Process | None] = ContextVar("owner", default=None)
"""The process that a task belongs to."""


Kind = Literal["read", "write", "send", "work"]
OUTLIVES_ITS_CALLER = frozenset({"write", "send"})
"""What is on its way already may still arrive when nobody waits for it any more."""


@dataclass(eq=False)
class Gate:
    """One await. `perform` does what is waited for; `broken` is what the caller is told when it fails."""

    owner: Process
    kind: Kind
    name: str
    perform: Callable[[], Awaitable[Any]]
    broken: Callable[[], Exception]
    forget: Callable[[], Awaitable[Any]] | None = None
    """Answers as `perform` does and changes nothing: an asynchronous commit, lost with the server after the answer."""
    answer: asyncio.Future[Any] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def __str__(self) -> str:
        return f"{self.owner.name}: {self.name}{' (nobody waits)' if self.answer.done() else ''}"

    async def open(self, deed: Callable[[], Awaitable[Any]] | None = None) -> None:
        """Performs, and tells the caller how it went. Of a caller that is dead, nobody is told."""
        try:
            result = await (deed or self.perform)()
        except Exception as error:
            if not self.answer.done():
                self.answer.set_exception(error)
        else:
            if not self.answer.done():
                self.answer.set_result(result)

    def fail(self) -> None:
        """The caller is told that it failed; nothing was performed."""
        if not self.answer.done():
            self.answer.set_exception(self.broken())

    async def open_unseen(self) -> None:
        """Performs; nobody hears how it went."""
        with suppress(CodeAgentError):
            await self.perform()

    async def open_and_fail(self) -> None:
        """Performs, but the caller is told that it failed."""
        await self.open_unseen()
        self.fail()


@dataclass(eq=False)
class Process:
    """What dies together: tasks and memory. `gates` are those of all processes, in the order they were reached."""

    name: str
    gates: list[Gate]
    alive: bool = True
    paused: bool = False
    tasks: dict[asyncio.Task[Any], None] = field(default_factory=dict)
    """In the order they were started, so that a schedule can be repeated."""

    def run(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Runs in this process whatever `work` does, and whatever that starts."""
        context = copy_context()
        context.run(OWNER.set, self)
        return asyncio.get_running_loop().create_task(work, context=context)

    async def pass_gate(
        self,
        kind: Kind,
        name: str,
        perform: Callable[[], Awaitable[Any]],
        broken: Callable[[], Exception],
        forget: Callable[[], Awaitable[Any]] | None = None,
    ) -> Any:
        if not self.alive:
            raise asyncio.CancelledError
        gate = Gate(self, kind, name, perform, broken, forget)
        self.gates.append(gate)
        try:
            return await gate.answer
        finally:
            if gate in self.gates and kind not in OUTLIVES_ITS_CALLER:
                self.gates.remove(gate)

    def kill(self) -> None:
        """SIGKILL, as far as one process can stage it: nothing of this process goes on, cleaning up included."""
        self.alive = False
        for task in list(self.tasks):
            task.cancel()


def owned_tasks(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any], **options: Any) -> asyncio.Task[Any]:
    """A task factory that books each task on the process that started it."""
    task = asyncio.Task(work, loop=loop, **options)
    context = options.get("context")
    owner = OWNER.get() if context is None else context.get(OWNER)
    if owner is not None:
        owner.tasks[task] = None
        task.add_done_callback(owner.tasks.pop)
        if not owner.alive:
            task.cancel()
    return task


Executed = Callable[[str, tuple[Any, ...], Sequence[Row]], None]


class _RolledBack(Exception):
    pass


class Wire(Database):
    """A process's connection to the database: statements pass one by one, in any order, as the schedule has it.

    `executed` is told of each statement that writes, with its arguments and its answer.
    """

    def __init__(self, process: Process, database: Database, executed: Executed) -> None:
        super().__init__(database.url)
        self._process = process
        self._database = database
        self._executed = executed

    async def fetch(self, query: str, *arguments: Any) -> Sequence[Row]:
        rows: Sequence[Row] = await self._process.pass_gate(
            "read",
            _named(query),
            lambda: self._database.fetch(query, *arguments),
            lambda: Unavailable("the database does not answer", code="database_unavailable"),
        )
        return rows

    async def write(self, query: str, *arguments: Any) -> Sequence[Row]:
        async def perform() -> Sequence[Row]:
            rows = await self._database.write(query, *arguments)
            self._executed(query, arguments, rows)
            return rows

        async def forget() -> Sequence[Row]:
            try:
                async with self._database.transaction() as connection:
                    rows = await connection.fetch(query, *arguments)
                    raise _RolledBack
            except _RolledBack:
                return rows

        rows: Sequence[Row] = await self._process.pass_gate(
            "write",
            _named(query),
            perform,
            lambda: OutcomeUnknown("the connection died"),
            forget if _is_asynchronous(query, arguments) else None,
        )
        return rows

    async def connect(self) -> NoReturn:
        """Notices come when the schedule says so, not through PostgreSQL."""
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    async def close(self) -> None:
        """The connections are shared with the other processes."""


def _is_asynchronous(query: str, arguments: tuple[Any, ...]) -> bool:
    """Whether the statement commits without waiting for the disk."""
    return "relaxed" in query or ("claim_effects_v3" in query and arguments[-1] is False)


_NAMES = {
    "commit_steps_v3": "commit steps",
    "record_outcomes_v3": "record outcomes",
    "claim_effects_v3": "claim",
    "claim_due_effects_v1": "claim what is due",
    "UPDATE outbox SET due_at": "take due messages",
    "kind IN ('timer', 'child')": "take due timers",
    "DELETE FROM outbox": "remove sent messages",
    "SET due_at = clock_timestamp() + $3 FROM held": "renew",
    "SET token = NULL": "release",
    "FROM events WHERE stream_id": "read the stream",
}


def _named(query: str) -> str:
    """A statement as a person would call it."""
    return next((name for words, name in _NAMES.items() if words in query), " ".join(query.split()[:6]))
