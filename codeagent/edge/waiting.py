"""Waiting for what becomes of a run, woken by its events."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.requests import ClientDisconnect

from codeagent.edge.challenges import unauthenticated
from codeagent.edge.context import EdgeContext
from codeagent.edge.traffic.exchange import Exchange
from codeagent.edge.views import RunViews
from codeagent.errors import CodeAgentError
from codeagent.identity.principal import Principal
from codeagent.projections.view import RunView

TRANSPORT = "wait"


def has_ended(view: RunView) -> bool:
    return view.status.terminal


async def until(
    holds: Callable[[RunView], bool],
    context: EdgeContext,
    exchange: Exchange,
    caller: Principal,
    view: RunView,
    seconds: int,
) -> RunView:
    """The run once something holds, or as it is after `seconds`, or when this process is asked to stop.

    The request counts as an open stream from now on. Raises `Exhausted` where there are too many of them,
    `unauthenticated` when the credential is revoked meanwhile, and `ClientDisconnect` when nobody waits any more.
    """
    if holds(view):
        return view
    context.traffic.hold(exchange, view.tenant_id)
    end = asyncio.create_task(_watched(holds, context, caller, view))
    gone = asyncio.create_task(_gone(exchange))
    try:
        await asyncio.wait({end, gone}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if end.done():
            return end.result()
        if gone.done():
            raise ClientDisconnect
        return await _latest(context.views, view)
    finally:
        end.cancel()
        gone.cancel()
        await asyncio.gather(end, gone, return_exceptions=True)


async def _watched(holds: Callable[[RunView], bool], context: EdgeContext, caller: Principal, view: RunView) -> RunView:
    with context.hub.subscribe(view.run_id, view.version, TRANSPORT) as subscriber:
        while True:
            subscriber.behind = False
            view = await _latest(context.views, view)
            subscriber.cursor = view.version
            if holds(view) or context.hub.closing:
                return view
            while not (subscriber.items or subscriber.behind or context.hub.closing):
                await subscriber.wake.wait()
                subscriber.wake.clear()
                # Nobody is shown these.
                subscriber.deltas.clear()
                if not context.still_valid(caller):
                    raise unauthenticated(context.policy.public_url, shown=True)
            subscriber.items.clear()


async def _latest(views: RunViews, view: RunView) -> RunView:
    """The run as the log has it; as it was known while the log is away."""
    try:
        return await views.get(view.tenant_id, view.run_id)
    except CodeAgentError:
        return view


async def _gone(exchange: Exchange) -> None:
    while (await exchange.receive())["type"] != "http.disconnect":
        pass
