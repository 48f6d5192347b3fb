"""What the agent does next: `decide(state, message, now)` returns facts and effects, and touches nothing.

The whole life of a run: prepare its files, think (a model call, then the tools it asks for, one by one, some of them
once a person has allowed them), collect the patch, have it judged where that was asked for, end. Time comes in as
`now`, ids are derived, so the same stream always leads to the same decisions.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from codeagent.agent import approvals, budget, endings, tools, verification
from codeagent.agent.draft import Decision, Draft
from codeagent.agent.state import RunState
from codeagent.messages import commands, events, results
from codeagent.messages.conversation import FinishReason, ToolCall
from codeagent.messages.envelope import Message, Payload
from codeagent.messages.events import Ending
from codeagent.messages.values import (
    ApprovalDecision,
    CallTool,
    CollectPatch,
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
    return draft.decision()


def _submit(draft: Draft, command: Payload) -> None:
    assert isinstance(command, commands.SubmitRun)
    if draft.state.submitted is not None:
        return
    canceled_first = draft.state.cancel is not None
    deadline_at = draft.now + timedelta(seconds=command.limits.deadline_seconds)
    draft.emit(
        events.RunSubmitted(
            **{name: getattr(command, name) for name in commands.SubmitRun.model_fields},
            principal=draft.message.envelope.actor_id,
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
        draft.tool_failed(call, approvals.REJECTED, approvals.refusal(command.comment))
        _advance(draft)
    else:
        _carry_out(draft, call)


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
    if not draft.answers(result.effect_id):
        return
    if draft.state.cancel is not None:
        draft.end(endings.canceled(draft.state))
    elif result.outcome is Outcome.DONE and result.message is not None:
        _record_message(draft, result)
        _advance(draft)
    elif result.outcome is Outcome.CANCELED:
        _collect(draft, endings.DEADLINE)
    elif result.outcome is Outcome.WORKER_LOST:
        _collect(draft, Ending(status=RunStatus.FAILED, reason="worker_lost", message="The model call was lost."))
    else:
        reason = result.error_reason if result.error_reason in _OWN_REASONS else "provider_error"
        _collect(draft, Ending(status=RunStatus.FAILED, reason=reason, message=result.error))


def _record_message(draft: Draft, result: results.ProviderResult) -> None:
    assert result.message is not None
    draft.emit(
        events.MessageCompleted(
            effect_id=result.effect_id,
            step=draft.state.step,
            attempt=result.attempt,
            text=result.message.text,
            text_ref=result.text_ref,
            tool_calls=result.message.tool_calls,
            finish_reason=result.finish_reason,
            model=result.model,
            usage=result.usage,
            cost_usd=result.cost_usd,
        )
    )


def _sandbox_answered(draft: Draft, result: Payload) -> None:
    assert isinstance(result, results.SandboxResult)
    pending = draft.state.pending
    if not draft.answers(result.effect_id) or pending is None:
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
        reason = endings.sandbox_reason(result, preparing=pending.name == "prepare")
        if pending.call is not None:
            draft.tool_failed(pending.call, result.error_reason or reason, result.error or NOT_CARRIED_OUT, result)
        _collect(draft, Ending(status=RunStatus.FAILED, reason=reason, message=result.error))
    elif pending.name == "prepare":
        draft.emit(
            events.StepCompleted(step=pending.step, name="prepare", base=result.base, checkpoint=result.checkpoint)
        )
        _think(draft)
    else:
        assert pending.call is not None
        draft.emit(_tool_completed(pending.call, pending.step, result))
        _advance(draft)


def _tool_completed(call: ToolCall, step: int, result: results.SandboxResult) -> events.ToolCallCompleted:
    return events.ToolCallCompleted(
        tool_call_id=call.id,
        name=call.name,
        step=step,
        effect_id=result.effect_id,
        attempt=result.attempt,
        output=result.output,
        output_ref=result.output_ref,
        reason=result.reason,
        exit_code=result.exit_code,
        duration_seconds=result.duration_seconds,
        checkpoint=result.checkpoint,
        used=result.used,
    )


def _advance(draft: Draft) -> None:
    """The next queued tool call, or the next model call, or the end."""
    if draft.now >= draft.state.deadline_at:
        _collect(draft, endings.DEADLINE)
        return
    spoke_only = not draft.state.queue and draft.state.pending is None and draft.just_spoke
    while draft.state.queue:
        call = draft.state.queue[0]
        try:
            arguments = _arguments(draft.state, call)
        except tools.BadToolCall as error:
            draft.tool_failed(call, error.code, str(error))
            continue
        if isinstance(arguments, tools.Submit):
            _collect(draft, Ending(status=RunStatus.COMPLETED, reason="", message=arguments.summary))
        elif call.name in tools.COMMANDS and (ending := budget.commands_exceeded(draft.state)) is not None:
            _collect(draft, ending)
        elif approvals.needed(draft.state, call):
            approvals.ask(draft, call)
        else:
            _carry_out(draft, call)
        return
    if spoke_only and draft.state.finish_reason is not FinishReason.LENGTH:
        _collect(draft, endings.spoken(draft.state))
    else:
        _think(draft)


def _arguments(state: RunState, call: ToolCall) -> tools.ToolArguments | None:
    """None where they are too long to travel: whoever carries the call out reads them. Raises `BadToolCall`."""
    tools.check_offered(call.name, state.tools)
    return None if call.arguments_ref else tools.parse(call)


def _carry_out(draft: Draft, call: ToolCall) -> None:
    draft.tool(call, CallTool(call=call, timeout_seconds=budget.command_seconds(draft.state)))


def _think(draft: Draft) -> None:
    if draft.now >= draft.state.deadline_at:
        _collect(draft, endings.DEADLINE)
    elif (ending := budget.exceeded(draft.state)) is not None:
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
            status=RunStatus.FAILED, reason="sandbox_error", message=f"The patch was not collected: {result.error}"
        )
    if ending.status is RunStatus.COMPLETED and draft.state.run.verification is not None:
        draft.step("verify", VerifyPatch(verification=draft.state.run.verification), ending)
    else:
        draft.end(ending)


_OWN_REASONS = frozenset({"content_filtered", "worker_lost"})

_HANDLERS: dict[type[Payload], Callable[[Draft, Payload], None]] = {
    commands.SubmitRun: _submit,
    commands.CancelRun: _cancel,
    commands.AnswerApproval: _answer,
    commands.FireTimer: _timer,
    results.ProviderResult: _model_answered,
    results.SandboxResult: _sandbox_answered,
}
HANDLED = frozenset(_HANDLERS)
"""The messages an agent worker takes."""
