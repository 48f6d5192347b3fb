"""Facts that an earlier program has decided, as this one says them."""

from __future__ import annotations

from codeagent.agent import approvals
from codeagent.messages import events
from codeagent.messages.envelope import Event


def as_now(fact: Event, first: Event) -> Event:
    """A fact of a step that began with `first`. Some had said again what a person has written, who may have been erased
    since."""
    match fact, first:
        case events.ToolCallFailed(code=approvals.REJECTED), events.InputReceived(approval_id=approval_id):
            return fact.model_copy(update={"error": approvals.REFUSED, "approval_id": approval_id})
        case events.RunCanceled(), _:
            return fact.model_copy(update={"message": ""})
        case _:
            return fact
