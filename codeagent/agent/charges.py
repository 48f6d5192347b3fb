"""What a model call used that brought the run no message."""

from __future__ import annotations

from codeagent.agent.draft import Draft
from codeagent.messages import results
from codeagent.messages.calls import MessageFailed
from codeagent.messages.conversation import Usage
from codeagent.messages.values import Outcome


def charge(draft: Draft, result: results.ProviderResult) -> None:
    """Counts it towards the run, where there is anything to count. A reply after a cancel has been paid for, too."""
    if result.usage == Usage() and not result.cost_usd:
        return
    outcome = Outcome.CANCELED if result.outcome is Outcome.DONE else result.outcome
    draft.emit(
        MessageFailed(
            effect_id=result.effect_id,
            step=draft.state.step,
            attempt=result.attempt,
            model=result.model,
            reason=result.error_reason or outcome.value,
            usage=result.usage,
            cost_usd=result.cost_usd,
        )
    )
