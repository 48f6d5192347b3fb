"""One WebSocket, from its authentication to its close."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

from starlette.websockets import WebSocket, WebSocketDisconnect

from codeagent.clock import new_uuid
from codeagent.edge.admission import Admission, admit, admit_ticket
from codeagent.edge.context import EdgeContext
from codeagent.edge.joined import LONGEST_SECONDS
from codeagent.edge.traffic.addresses import origin_of
from codeagent.edge.websocket import frames
from codeagent.edge.websocket.budget import FrameBudget
from codeagent.edge.websocket.closing import Closed, Code, Gone
from codeagent.edge.websocket.subscriptions import Subscriptions
from codeagent.errors import CodeAgentError, Exhausted, Unavailable
from codeagent.identity.tickets import is_ticket
from codeagent.telemetry import metrics
from codeagent.telemetry.logs import get_logger

log = get_logger(__name__)

GOODBYE_SECONDS = 2.0
"""How long streams may take to say their last word, and the close frame to leave."""


class Session:
    """Three things at once, each of which may end it: frames are answered in their order, subscriptions send what
    they follow, and a watch asks whether the credential still holds."""

    def __init__(self, socket: WebSocket, context: EdgeContext) -> None:
        self._socket = socket
        self._context = context
        self._limits = context.policy.sockets
        self._budget = FrameBudget(self._limits.frames_burst, self._limits.frames_per_second)
        self._admission: Admission | None = None
        self._renewed = asyncio.Event()

    async def serve(self, ticket: str | None) -> None:
        """Returns when the connection is closed, by whichever side."""
        closed: Closed | None = None
        try:
            await self._serve(ticket)
        except* Gone:
            pass
        except* Closed as found:
            closed = next(error for error in found.exceptions if isinstance(error, Closed))
        except* Exception as found:
            log.error("websocket.crashed", exc_info=found.exceptions[0])
            closed = Closed(Code.INTERNAL_ERROR, "internal_error")
        if closed is not None:
            metrics.WEBSOCKETS_CLOSED.labels(str(int(closed.code))).inc()
            log.info("websocket.closed", code=int(closed.code), reason=closed.reason)
            with contextlib.suppress(TimeoutError, RuntimeError, WebSocketDisconnect):
                async with asyncio.timeout(GOODBYE_SECONDS):
                    await self._socket.close(closed.code, closed.reason)

    async def _serve(self, ticket: str | None) -> None:
        with self._counting():
            self._admission = await self._authenticated(ticket)
        try:
            self._context.traffic.admit_stream(self._admission.principal)
        except CodeAgentError as error:
            raise Closed(Code.TOO_MANY if error.status == 429 else Code.UNAVAILABLE, error.code) from None
        try:
            await self._follow()
        finally:
            self._context.traffic.load.close_stream(self._admission.tenant_id)

    async def _follow(self) -> None:
        await self._greet()
        async with asyncio.TaskGroup() as tasks:
            subscriptions = Subscriptions(self._context, self, self._send, tasks)
            tasks.create_task(self._watch(subscriptions))
            while True:
                await self._answer(await self._frame(), subscriptions)

    async def _authenticated(self, ticket: str | None) -> Admission:
        if ticket is None:
            try:
                async with asyncio.timeout(self._limits.auth_seconds):
                    frame = await self._frame()
            except TimeoutError:
                raise Closed(Code.AUTH_TIMEOUT, "auth_timeout") from None
            if not isinstance(frame, frames.Auth):
                raise Closed(Code.UNAUTHENTICATED, "auth_first")
            ticket = frame.token
        return await self._admitted(ticket)

    async def _admitted(self, token: str) -> Admission:
        try:
            if is_ticket(token):
                return await admit_ticket(self._context, token, self._socket.client)
            principal = await self._context.authenticate(token)
            if principal is None:
                raise Closed(Code.UNAUTHENTICATED, "unauthenticated")
            return admit(self._context, principal, self._socket.client)
        except Unavailable as error:
            raise Closed(Code.UNAVAILABLE, error.code) from None
        except CodeAgentError as error:
            raise Closed(Code.FORBIDDEN if error.status == 403 else Code.UNAUTHENTICATED, error.code) from None

    @contextlib.contextmanager
    def _counting(self) -> Iterator[None]:
        """Who is not let in is counted by address: guesses are, whichever way they come in."""
        try:
            yield
        except Closed as refused:
            if refused.code is Code.UNAVAILABLE:
                raise
            try:
                self._context.traffic.rates.admit_anonymous(origin_of(self._socket.scope))
            except Exhausted as exhausted:
                raise Closed(Code.TOO_MANY, exhausted.code) from None
            raise

    async def _greet(self) -> None:
        expires = self.admission.principal.expires_at
        await self._send(
            frames.server_frame(
                "ready",
                connection=str(new_uuid()),
                heartbeat_seconds=self._context.policy.heartbeat_seconds,
                subscriptions=self._limits.subscriptions,
                expires_at=expires,
            )
        )

    @property
    def admission(self) -> Admission:
        assert self._admission is not None
        return self._admission

    def ended(self) -> str | None:
        return self.admission.ended()

    def seconds_left(self) -> float:
        return self.admission.seconds_left()

    async def _frame(self) -> frames.FromClient:
        message = await self._socket.receive()
        if message["type"] == "websocket.disconnect":
            raise Gone
        self._budget.spend()
        text = message.get("text")
        if text is None:
            raise Closed(Code.NOT_TEXT, "not_text")
        return frames.parse(text)

    async def _answer(self, frame: frames.FromClient, subscriptions: Subscriptions) -> None:
        if isinstance(frame, frames.Auth):
            await self._renew(frame)
            return
        try:
            match frame:
                case frames.Subscribe():
                    await subscriptions.open(frame)
                case frames.Unsubscribe():
                    subscriptions.end(frame)
                case frames.Ack():
                    subscriptions.acknowledge(frame)
                case frames.Ping():
                    await self._send(frames.server_frame("pong"))
        except CodeAgentError as error:
            name = getattr(frame, "name", None) or getattr(frame, "subscription", None)
            await self._send(frames.server_frame("error", code=error.code, detail=error.detail, subscription=name))

    async def _renew(self, frame: frames.Auth) -> None:
        """A newer credential of the same caller: what is open goes on."""
        with self._counting():
            renewed, present = await self._admitted(frame.token), self.admission
        if (renewed.tenant_id, renewed.principal.id, renewed.only_run) != (
            present.tenant_id,
            present.principal.id,
            present.only_run,
        ):
            raise Closed(Code.FORBIDDEN, "another_caller")
        self._admission = renewed
        self._renewed.set()
        await self._greet()

    async def _watch(self, subscriptions: Subscriptions) -> None:
        loop, heartbeat = asyncio.get_running_loop(), self._context.policy.heartbeat_seconds
        latest = loop.time() + LONGEST_SECONDS
        with self._context.hub.watch(self._renewed):
            while (reason := self.ended()) is None and loop.time() < latest:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(max(0.0, min(heartbeat, self.seconds_left()))):
                        await self._renewed.wait()
                self._renewed.clear()
            reason = reason or "reconnect"
            await subscriptions.finish(reason, GOODBYE_SECONDS)
            raise Closed(Code.RECONNECT if reason == "reconnect" else Code.UNAUTHENTICATED, reason)

    async def _send(self, text: str) -> None:
        try:
            async with asyncio.timeout(self._limits.send_seconds):
                await self._socket.send_text(text)
        except TimeoutError:
            raise Closed(Code.TOO_SLOW, "too_slow") from None
        except (RuntimeError, WebSocketDisconnect):
            raise Gone from None
