"""What a judged patch leads to: a run that asked for that ends as completed only if its patch has passed."""

from __future__ import annotations

from codeagent.agent import endings
from codeagent.agent.draft import Draft
from codeagent.messages import events, results
from codeagent.messages.events import Ending
from codeagent.messages.values import Outcome, RunStatus
from codeagent.messages.verification import PatchVerdict

NOT_VERIFIED = "verification_failed"
NOT_JUDGED = "The patch was not judged: "
"""What a run is told by whose patch could not be judged. The reason follows."""


def judged(draft: Draft, result: results.SandboxResult) -> None:
    """Ends the run."""
    state, verdict = draft.state, _verdict(result)
    draft.emit(
        events.RunVerified(
            effect_id=result.effect_id,
            attempt=result.attempt,
            verdict=verdict,
            reason=result.reason or result.outcome.value,
            exit_code=result.exit_code,
            output=result.output,
            output_ref=result.output_ref,
            restored=result.restored or (),
            duration_seconds=result.duration_seconds,
            used=result.used,
        )
    )
    draft.emit(events.StepCompleted(step=state.step, name="verify"))
    if verdict is PatchVerdict.PASSED and state.ending is not None:
        draft.end(state.ending)
    elif result.outcome is Outcome.DONE:
        draft.end(Ending(status=RunStatus.FAILED, reason=NOT_VERIFIED, message=_message(result)))
    elif result.error_reason == "patch_conflict":
        message = "The patch does not apply without its changes to protected files."
        draft.end(Ending(status=RunStatus.FAILED, reason=NOT_VERIFIED, message=message))
    else:
        reason = endings.sandbox_reason(result, "verify")
        message = f"{NOT_JUDGED}{result.error or result.outcome}"
        draft.end(Ending(status=RunStatus.FAILED, reason=reason, message=message))


def _verdict(result: results.SandboxResult) -> PatchVerdict:
    if result.outcome is not Outcome.DONE:
        return PatchVerdict.ERROR
    return {"ok": PatchVerdict.PASSED, "exit": PatchVerdict.FAILED}.get(result.reason, PatchVerdict.ERROR)


def _message(result: results.SandboxResult) -> str:
    how = f"exit {result.exit_code}" if result.reason == "exit" else result.reason
    return f"The patch did not pass its verification: {how}."
