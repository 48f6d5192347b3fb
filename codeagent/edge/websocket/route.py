"""`/v1/ws`: any number of streams over one connection. The protocol stands in `docs/streaming.md`."""

from __future__ import annotations

from typing import cast
from urllib.parse import urlsplit

from fastapi import APIRouter, Response, WebSocket

from codeagent.edge.context import EdgeContext
from codeagent.edge.problems import problem
from codeagent.edge.websocket.session import Session

SUBPROTOCOL = "cloudevents.json"
router = APIRouter(prefix="/v1")


@router.websocket("/ws")
async def follow(socket: WebSocket) -> None:
    context = cast(EdgeContext, socket.app.state.context)
    refusal = _refusal(socket, context)
    if refusal is not None:
        await socket.send_denial_response(refusal)
        return
    await socket.accept(subprotocol=SUBPROTOCOL)
    await Session(socket, context).serve(socket.query_params.get("ticket"))


def _refusal(socket: WebSocket, context: EdgeContext) -> Response | None:
    """What keeps the handshake from being completed, as a plain HTTP answer."""
    if context.hub.closing:
        return problem(503, "unavailable", "This server is stopping: connect again.")
    if context.traffic.load.refusal() is not None:
        return problem(503, "temporary_reduced_capacity", "Too much is going on. Try again soon.")
    origin, host = socket.headers.get("origin"), socket.headers.get("host", "")
    if not may_connect(origin, host, context.policy.allowed_origins):
        return problem(403, "origin_not_allowed", "Pages of this origin may not connect.")
    if SUBPROTOCOL not in socket.scope["subprotocols"]:
        return problem(400, "unsupported_subprotocol", f"Offer the subprotocol {SUBPROTOCOL}.")
    return None


def may_connect(origin: str | None, host: str, allowed: tuple[str, ...]) -> bool:
    """Browsers open sockets for any page, and say for which: ours, or one on the list. Others say nothing."""
    if origin is None or origin in allowed:
        return True
    try:
        page = urlsplit(origin)
    except ValueError:
        return False
    return page.scheme in {"http", "https"} and page.netloc != "" and page.netloc.lower() == host.lower()
