"""The subscriptions of one connection, by name."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from codeagent.edge.admission import Admission
from codeagent.edge.context import EdgeContext
from codeagent.edge.events import feed_position, wanted_events
from codeagent.edge.feed import FeedSource
from codeagent.edge.joined import EventStream, Life
from codeagent.edge.live import RunSource
from codeagent.edge.runs import run_position
from codeagent.edge.websocket.frames import Ack, Subscribe, Unsubscribe
from codeagent.edge.websocket.subscription import Send, Subscription
from codeagent.errors import Conflict, NotFound, Rejected
from codeagent.eventlog.log import Cursor

TRANSPORT = "websocket"


class Caller(Life, Protocol):
    """The connection, as its subscriptions see it."""

    @property
    def admission(self) -> Admission:
        """Who it is now: a credential may be renewed."""


class Subscriptions:
    """What a client asks for wrongly raises `CodeAgentError`, and costs it nothing else."""

    def __init__(self, context: EdgeContext, caller: Caller, send: Send, tasks: asyncio.TaskGroup) -> None:
        self._context = context
        self._caller = caller
        self._send = send
        self._tasks = tasks
        self._open: dict[str, tuple[Subscription, asyncio.Task[None]]] = {}

    async def open(self, frame: Subscribe) -> None:
        name, most = frame.name, self._context.policy.sockets.subscriptions
        if name in self._open:
            raise Conflict(f"There is a subscription {name!r} already.", code="subscription_exists")
        if len(self._open) >= most:
            raise Rejected(f"A connection has {most} subscriptions at most.", code="too_many_subscriptions")
        self._caller.admission.check(frame.run_id)
        stream: EventStream[Any] = (
            await self._feed(frame) if frame.feed else await self._run(frame.run_id or "", frame.after)
        )
        subscription = Subscription(name, stream, self._send, frame.window)
        task = self._tasks.create_task(subscription.run())
        self._open[name] = subscription, task
        task.add_done_callback(lambda _: self._open.pop(name))

    async def _run(self, run_id: str, after: str) -> EventStream[int]:
        context = self._context
        view = await context.views.get(self._caller.admission.tenant_id, run_id)
        position = run_position(after, view)
        source = RunSource(context.log, context.hub, view.tenant_id, run_id, transport=TRANSPORT)
        stream = EventStream(source, position, self._caller, heartbeat_seconds=context.policy.heartbeat_seconds)
        if view.status.terminal and position == view.version:
            stream.finish("run_ended")
        return stream

    async def _feed(self, frame: Subscribe) -> EventStream[Cursor]:
        context, tenant_id = self._context, self._caller.admission.tenant_id
        wanted = await wanted_events(context, tenant_id, frame.types, None)
        position = await feed_position(context, frame.after)
        source = FeedSource(context.log, context.hub.feeds, tenant_id, wanted, transport=TRANSPORT)
        return EventStream(source, position, self._caller, heartbeat_seconds=context.policy.heartbeat_seconds)

    def end(self, frame: Unsubscribe) -> None:
        """It says `stream.end` last; then its name is free."""
        self._found(frame.subscription).finish("unsubscribed")

    def acknowledge(self, frame: Ack) -> None:
        if not self._found(frame.subscription).acknowledge(frame.position):
            raise Rejected("That position waits for no acknowledgement.", code="unknown_position")

    def _found(self, name: str) -> Subscription:
        if name not in self._open:
            raise NotFound(f"There is no subscription {name!r}.")
        return self._open[name][0]

    async def finish(self, reason: str, seconds: float) -> None:
        """Has all of them say `stream.end`, and waits so long for it."""
        for subscription, _ in self._open.values():
            subscription.finish(reason)
        tasks = [task for _, task in self._open.values()]
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)
