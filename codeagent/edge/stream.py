"""One run's events as Server-Sent Events: the log from the cursor, then live, joined on the stream's version."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import orjson
from sse_starlette import ServerSentEvent

from codeagent import clock
from codeagent.edge.live import LiveHub, Subscriber
from codeagent.errors import CodeAgentError
from codeagent.eventlog.stored import StoredEvent
from codeagent.eventlog.tenants import TenantLog
from codeagent.identity.principal import Principal
from codeagent.messages.envelope import to_structured
from codeagent.messages.ids import run_stream
from codeagent.messages.results import Delta

TERMINAL = frozenset({"run.completed", "run.failed", "run.canceled", "run.rejected"})
HEARTBEAT_SECONDS = 15.0
LONGEST_SECONDS = 6 * 3600.0


def structured(event: StoredEvent) -> dict[str, Any]:
    """A stored event as one JSON object, as clients, pages and exports have it."""
    return to_structured(event.envelope(), event.document())


@dataclass(frozen=True, slots=True)
class _LastMoment:
    """When a stream ends at the latest, by the event loop's clock, and why."""

    at: float
    reason: str

    def left(self) -> float:
        return self.at - asyncio.get_running_loop().time()

    def over(self, subscriber: Subscriber) -> str:
        """The reason to end now, or empty."""
        return subscriber.ending or (self.reason if self.left() <= 0 else "")


class RunStream:
    """The events of one run for one client. Every version is sent once, in order; deltas are sent as they come."""

    def __init__(
        self,
        log_reader: TenantLog,
        hub: LiveHub,
        caller: Principal,
        run_id: str,
        after: int,
        *,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
    ) -> None:
        self._log = log_reader
        self._hub = hub
        self._caller = caller
        self._run_id = run_id
        self._after = after
        self._heartbeat = heartbeat_seconds
        self._ended = False
        self._attempts: dict[str, int] = {}

    async def events(self) -> AsyncIterator[ServerSentEvent]:
        """Subscribes first, then reads the log, then drains what came meanwhile: nothing can fall in between."""
        # Spread out, so that a restarted edge is not met by everybody at the same moment.
        retry = random.randint(1_500, 4_500)  # noqa: S311  not for secrets
        yield ServerSentEvent(event="stream.open", data="{}", retry=retry)
        last_moment = self._last_moment()
        with self._hub.subscribe(self._run_id, self._caller, self._after) as subscriber:
            subscriber.behind = True
            while not self._ended:
                if over := last_moment.over(subscriber):
                    yield _control("stream.end", {"reason": over})
                    return
                async with aclosing(self._pending(subscriber)) as pending:
                    async for message in pending:
                        yield message
                        if last_moment.over(subscriber) in {"revoked", "token_expired"}:
                            break  # however much is still to be read
                if self._ended or last_moment.over(subscriber):
                    continue
                woken = await self._woken(subscriber, min(last_moment.left(), self._heartbeat))
                if not woken and not last_moment.over(subscriber):
                    yield _control("stream.heartbeat", {"version": subscriber.cursor})
        yield _control("stream.end", {"reason": "run_ended"})

    def _last_moment(self) -> _LastMoment:
        longest, expires_at = LONGEST_SECONDS, self._caller.expires_at
        left = longest if expires_at is None else (expires_at - clock.now()).total_seconds()
        reason = "token_expired" if left < longest else "reconnect"
        return _LastMoment(asyncio.get_running_loop().time() + min(left, longest), reason)

    async def _woken(self, subscriber: Subscriber, seconds: float) -> bool:
        assert subscriber.wake is not None
        try:
            async with asyncio.timeout(seconds):
                await subscriber.wake.wait()
        except TimeoutError:
            return False
        subscriber.wake.clear()
        return True

    async def _pending(self, subscriber: Subscriber) -> AsyncGenerator[ServerSentEvent]:
        while subscriber.events and not subscriber.behind:
            event = subscriber.events.popleft()
            if event.version == subscriber.cursor + 1:
                # What was written before this event is shown before it.
                for delta in self._deltas(subscriber):
                    yield delta
                yield self._durable(subscriber, event.version, event.name, event.data)
            elif event.version > subscriber.cursor:
                subscriber.behind = True
        if subscriber.behind:
            async for message in self._from_log(subscriber):
                yield message
        for delta in self._deltas(subscriber):
            yield delta

    async def _from_log(self, subscriber: Subscriber) -> AsyncIterator[ServerSentEvent]:
        subscriber.behind = False
        try:
            async for stored in self._log.stream(self._caller.tenant_id, run_stream(self._run_id), subscriber.cursor):
                data = orjson.dumps(structured(stored)).decode()
                yield self._durable(subscriber, stored.version, stored.type, data)
        except CodeAgentError:
            # The stream outlives a database that is away: it looks again at the next heartbeat.
            subscriber.behind = True

    def _durable(self, subscriber: Subscriber, version: int, name: str, data: str) -> ServerSentEvent:
        subscriber.cursor = version
        self._ended = self._ended or name in TERMINAL
        return ServerSentEvent(event=name, id=str(version), data=data)

    def _deltas(self, subscriber: Subscriber) -> list[ServerSentEvent]:
        """Those of an attempt that has been given up are left out: their text was begun again."""
        messages: list[ServerSentEvent] = []
        if subscriber.dropped:
            dropped, subscriber.dropped = subscriber.dropped, 0
            messages.append(_control("stream.lagging", {"dropped": dropped}))
        while subscriber.deltas:
            value = subscriber.deltas.popleft()
            try:
                delta = Delta.model_validate_json(value)
            except ValueError:
                continue
            effect = str(delta.effect_id)
            newest = self._attempts.get(effect, 0)
            if delta.attempt >= newest:
                self._attempts[effect] = delta.attempt
                messages.append(ServerSentEvent(event=delta.name, data=delta.model_dump_json()))
        return messages


def _control(name: str, data: Mapping[str, Any]) -> ServerSentEvent:
    return ServerSentEvent(event=name, data=orjson.dumps(data).decode())
