"""What the agent does next: `decide(state, message, now)` returns facts and effects, and touches nothing.

The whole life of a run: prepare its files and what they depend on, think (a model call, then the tools it asks for,
one by one, some of them once a person has allowed them), collect the patch, have it judged where that was asked for,
end. Time comes in as `now`, ids are derived, so the same stream always leads to the same decisions.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from codeagent.agent import approvals, budget, calls, delegation, endings, mcp_calls, stuck, verification
from codeagent.agent.charges import charge
from codeagent.agent.draft import Decision, Draft
from codeagent.agent.state import Pending, RunState
from codeagent.messages import commands, events, results
from codeagent.messages.conversation import FinishReason
from codeagent.messages.envelope import Message, Payload
from codeagent.messages.events import Ending
from codeagent.messages.loop_events import RunGuidanceFound
from codeagent.messages.mcp_calls import McpResult
from codeagent.messages.subagents import SubagentResult
from codeagent.messages.values import (
    ApprovalDecision,
    CollectPatch,
    InstallDependencies,
    Outcome,
    PrepareFiles,
    RunStatus,
    VerifyPatch,
)

GRACE = timedelta(seconds=30)
"""How long a canceled or overdue effect may take to answer before the run ends without it."""

MAX_OUTPUT_TOKENS = 8_192
NOT_CARRIED_OUT = "The sandbox did not carry it out."


def decide(state: RunState, message: Message, now: datetime) -> Decision:
    """The facts and effects that `message` leads to. An empty decision means: seen before, or too late to matter."""
    draft = Draft(state, message, now)
    if not state.status.terminal:
        _HANDLERS[type(message.data)](draft, message.data)
        delegation.tell_others(draft)
    return draft.decision()


def _submit(draft: Draft, command: Payload) -> None:
    assert isinstance(command, commands.SubmitRun)
    if draft.state.submitted is not None:
        return
    canceled_first = draft.state.cancel is not None
    deadline_at = draft.now + timedelta(seconds=command.limits.deadline_seconds)
    principal = draft.message.envelope.actor_id
    if (parent := command.parent) is not None:
        deadline_at, principal = min(deadline_at, parent.deadline_at), parent.principal
    draft.emit(
        events.RunSubmitted(
            **{name: getattr(command, name) for name in commands.SubmitRun.model_fields},
            principal=principal,
            deadline_at=deadline_at,
        )
    )
    expires_at = draft.message.envelope.expires_at
    if canceled_first:
        draft.end(endings.canceled(draft.state))
    elif expires_at is not None and expires_at < draft.now:
        draft.end(Ending(status=RunStatus.FAILED, reason="queue_timeout", message="The run waited too long to start."))
    else:
        draft.emit(events.RunStarted())
        draft.timer("deadline", deadline_at)
        files = PrepareFiles(source=command.source, project_id=command.project_id, continues=command.continues)
        draft.step("prepare", files)


def _cancel(draft: Draft, command: Payload) -> None:
    assert isinstance(command, commands.CancelRun)
    if draft.state.cancel is not None:
        return
    draft.emit(events.CancelRequested(principal=draft.message.envelope.actor_id, reason=command.reason))
    if draft.state.pending is not None:
        draft.cancel_effects()
        draft.timer("cancel_grace", draft.now + GRACE)
    elif draft.state.approval is not None:
        draft.end(endings.canceled(draft.state))


def _answer(draft: Draft, command: Payload) -> None:
    assert isinstance(command, commands.AnswerApproval)
    request = draft.state.approval
    if request is None or request.approval_id != command.approval_id:
        return
    call = draft.state.queue[0]
    draft.emit(
        events.InputReceived(
            approval_id=command.approval_id,
            decision=command.decision,
            comment=command.comment,
            principal=draft.message.envelope.actor_id,
        )
    )
    approvals.resume(draft, request)
    if command.decision is ApprovalDecision.REJECT:
        draft.tool_failed(call, approvals.REJECTED, approvals.REFUSED, approval_id=command.approval_id)
        _advance(draft)
    else:
        calls.start(draft, call)


def _timer(draft: Draft, command: Payload) -> None:
    assert isinstance(command, commands.FireTimer)
    state = draft.state
    if state.submitted is None:
        return
    if command.timer == "cancel_grace":
        if state.cancel is not None:
            draft.end(endings.canceled(draft.state))
    elif command.timer == "approval_expiry":
        _expire(draft)
    elif command.timer == "child":
        if delegation.lost(draft):
            _advance(draft)
    elif state.approval is not None:
        # The deadline stands still: this is its timer from before, which was still on its way.
        return
    elif draft.now >= state.deadline_at + GRACE:
        draft.end(endings.overdue(state))
    elif draft.now >= state.deadline_at and state.ending is None:
        draft.cancel_effects()


def _expire(draft: Draft) -> None:
    request = draft.state.approval
    if request is not None and draft.now >= request.expires_at:
        draft.emit(events.InputExpired(approval_id=request.approval_id))
        approvals.resume(draft, request)
        _collect(draft, endings.UNANSWERED)


def _model_answered(draft: Draft, result: Payload) -> None:
    assert isinstance(result, results.ProviderResult)
    if draft.answers(result.effect_id) is None:
        return
    if draft.state.cancel is not None or result.outcome is not Outcome.DONE:
        charge(draft, result)
    if draft.state.cancel is not None:
        draft.end(endings.canceled(draft.state))
    elif result.outcome is Outcome.DONE and result.message is not None:
        draft.message_completed(result)
        _advance(draft)
    elif result.outcome is Outcome.CANCELED:
        _collect(draft, endings.DEADLINE)
    elif result.outcome is Outcome.WORKER_LOST:
        _collect(draft, Ending(status=RunStatus.FAILED, reason="worker_lost", message="The model call was lost."))
    else:
        reason = result.error_reason if result.error_reason in _OWN_REASONS else "provider_error"
        _collect(draft, Ending(status=RunStatus.FAILED, reason=reason, message=result.error))


def _sandbox_answered(draft: Draft, result: Payload) -> None:
    assert isinstance(result, results.SandboxResult)
    pending = draft.answers(result.effect_id)
    if pending is None:
        return
    if draft.state.cancel is not None:
        draft.end(endings.canceled(draft.state))
    elif pending.name == "collect":
        _collected(draft, result)
    elif pending.name == "verify":
        verification.judged(draft, result)
    elif result.outcome is Outcome.CANCELED:
        _collect(draft, endings.DEADLINE)
    elif result.outcome is not Outcome.DONE:
        reason = endings.sandbox_reason(result, pending.name)
        if pending.call is not None:
            draft.tool_failed(pending.call, result.error_reason or reason, result.error or NOT_CARRIED_OUT, result)
        _collect(draft, Ending(status=RunStatus.FAILED, reason=reason, message=result.error))
    elif pending.name == "prepare":
        _prepared(draft, pending, result)
    elif pending.name == "install":
        _installed(draft, pending, result)
    else:
        assert pending.call is not None
        draft.tool_completed(pending.call, result)
        _advance(draft)


def _prepared(draft: Draft, pending: Pending, result: results.SandboxResult) -> None:
    draft.emit(events.StepCompleted(step=pending.step, name="prepare", base=result.base, checkpoint=result.checkpoint))
    if result.guidance is not None:
        draft.emit(RunGuidanceFound(guidance=result.guidance))
    _install(draft)


def _mcp_answered(draft: Draft, result: Payload) -> None:
    assert isinstance(result, McpResult)
    pending = draft.answers(result.effect_id)
    if pending is None:
        return
    if draft.state.cancel is not None:
        draft.end(endings.canceled(draft.state))
    elif result.outcome is Outcome.CANCELED:
        _collect(draft, endings.DEADLINE)
    else:
        mcp_calls.answered(draft, pending, result)
        _advance(draft)


def _child_answered(draft: Draft, result: Payload) -> None:
    assert isinstance(result, SubagentResult)
    if delegation.answered(draft, result):
        _advance(draft)


def _install(draft: Draft) -> None:
    """What the prepared files depend on, where their project says how that is had; then the run begins to think."""
    dependencies = draft.state.run.dependencies
    if dependencies is None:
        _think(draft)
    elif draft.now >= draft.state.deadline_at:
        _collect(draft, endings.DEADLINE)
    else:
        draft.step("install", InstallDependencies(dependencies=dependencies))


def _installed(draft: Draft, pending: Pending, result: results.SandboxResult) -> None:
    if result.dependencies is None:
        _collect(draft, endings.not_installed(result))
        return
    draft.emit(events.StepCompleted(step=pending.step, name="install", dependencies=result.dependencies))
    _think(draft)


def _advance(draft: Draft) -> None:
    """The next tool calls, or the next model call, or the end."""
    if draft.now >= draft.state.deadline_at:
        _collect(draft, endings.DEADLINE)
        return
    spoke_only = draft.just_spoke
    if (ending := calls.carry_on(draft)) is not None:
        _collect(draft, ending)
    elif draft.state.open or draft.state.approval is not None:
        return
    elif spoke_only and draft.state.finish_reason is not FinishReason.LENGTH:
        _collect(draft, endings.spoken(draft.state))
    else:
        _think(draft)


def _think(draft: Draft) -> None:
    if draft.now >= draft.state.deadline_at:
        _collect(draft, endings.DEADLINE)
    elif (ending := budget.exceeded(draft.state) or stuck.ending(draft)) is not None:
        _collect(draft, ending)
    else:
        draft.think(budget.output_tokens(draft.state, MAX_OUTPUT_TOKENS))


def _collect(draft: Draft, ending: Ending) -> None:
    """Store what was changed, then end; at once where no files were ever prepared."""
    if draft.state.base is None:
        draft.end(ending)
    else:
        draft.step("collect", CollectPatch(), ending)


def _collected(draft: Draft, result: results.SandboxResult) -> None:
    ending = draft.state.ending or endings.DEADLINE
    if result.outcome is Outcome.DONE:
        if result.patch is not None:
            draft.emit(events.ArtifactCreated(artifact=result.patch))
        draft.emit(events.StepCompleted(step=draft.state.step, name="collect"))
    elif ending.status is RunStatus.COMPLETED:
        ending = Ending(
            status=RunStatus.FAILED, reason="sandbox_error", message=f"{endings.NOT_COLLECTED}{result.error}"
        )
    if ending.status is RunStatus.COMPLETED and draft.state.run.verification is not None:
        draft.step("verify", VerifyPatch(verification=draft.state.run.verification), ending)
    else:
        draft.end(ending)


_OWN_REASONS = frozenset(
    {"budget_exceeded", "budget_exhausted", "content_filtered", "erased", "price_unknown", "worker_lost"}
)

_HANDLERS: dict[type[Payload], Callable[[Draft, Payload], None]] = {
    commands.SubmitRun: _submit,
    commands.CancelRun: _cancel,
    commands.AnswerApproval: _answer,
    commands.FireTimer: _timer,
    results.ProviderResult: _model_answered,
    results.SandboxResult: _sandbox_answered,
    McpResult: _mcp_answered,
    SubagentResult: _child_answered,
}
HANDLED = frozenset(_HANDLERS)
"""The messages an agent worker takes."""
