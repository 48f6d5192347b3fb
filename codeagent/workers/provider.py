"""Model calls: folds the conversation from the run's stream, asks the provider, streams, says what it used and cost."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from hashlib import sha256
from typing import Protocol

from codeagent.agent.prompt import Transcript, build, offered
from codeagent.errors import CodeAgentError, Unavailable
from codeagent.eventlog.log import EventLog
from codeagent.messages.commands import GenerateReply
from codeagent.messages.conversation import AssistantMessage, ChatMessage, ToolCall, Usage
from codeagent.messages.events import CallEnded
from codeagent.messages.ids import call_stream, run_stream
from codeagent.messages.results import ProviderResult
from codeagent.messages.values import Outcome
from codeagent.providers.protocol import ModelReply, ModelRequest, ProviderError, TextSink
from codeagent.telemetry import metrics
from codeagent.telemetry.traces import span
from codeagent.workers.deltas import DeltaSender, Send, unsent
from codeagent.workers.effect import Work
from codeagent.workers.ended import Ended
from codeagent.workers.storing import until_stored

INLINE_BYTES = 24_000
"""Longer texts and arguments become artifacts: an event stays well below what a record may hold."""

MOST_TRANSCRIPTS = 2_000
OVERHEAD_TOKENS = 2_000
"""Left in the window for the tools' own descriptions."""


class Model(Protocol):
    """A provider with its retries and breaker around it."""

    name: str

    def context_window(self, model: str) -> int: ...

    async def generate(
        self, request: ModelRequest, on_text: TextSink, on_attempt: Callable[[int], None] | None = None
    ) -> ModelReply: ...


class Blobs(Protocol):
    """The artifact store, as far as workers need it."""

    async def put(self, tenant_id: str, data: bytes) -> str: ...

    async def read(self, tenant_id: str, digest: str, limit_bytes: int | None = None) -> bytes: ...


class ProviderPerformer:
    """Performs `provider.generate`. `resolve` gives the model behind `<provider>/<name>`; it may raise. `is_live` says
    whether a tenant sees text while it is written."""

    kind = "provider"

    def __init__(
        self,
        log_reader: EventLog,
        blobs: Blobs,
        resolve: Callable[[str], tuple[Model, str]],
        send_delta: Send,
        *,
        answers_topic: str,
        most_tries: int = 3,
        is_live: Callable[[str], bool] = lambda _: True,
    ) -> None:
        self.answers_topic = answers_topic
        self._log = log_reader
        self._blobs = blobs
        self._resolve = resolve
        self._send_delta = send_delta
        self._most_tries = most_tries
        self._is_live = is_live
        self._transcripts: OrderedDict[str, Transcript] = OrderedDict()

    async def perform(self, work: Work) -> Ended:
        command = work.message.data
        assert isinstance(command, GenerateReply)
        try:
            model, name = self._resolve(command.model)
        except CodeAgentError as error:
            return self.ended(work, Outcome.FAILED, error)
        request = await self._request(work, command, model.context_window(name), name)
        send = self._send_delta if self._is_live(work.message.envelope.tenant_id) else unsent
        deltas = DeltaSender(send, "message.delta", command.run_id, command.effect_id)
        tries = 0

        def on_attempt(number: int) -> None:
            nonlocal tries
            tries = number
            deltas.begin_attempt((work.claim.attempt - 1) * self._most_tries + number)

        async def on_text(text: str) -> None:
            await deltas.write("text", text)

        with span(f"chat {command.model}", attributes={"gen_ai.operation.name": "chat"}):
            try:
                reply = await model.generate(request, on_text, on_attempt)
            except ProviderError as error:
                # Raised on: what may pass is tried again as another attempt, the rest ends the call.
                _observe(work, command.model, error.usage or Usage(), None, error.reason)
                raise
            finally:
                await deltas.close()
        _observe(work, command.model, reply.usage, reply.cost_usd, "")
        return await self._done(work, command, request, reply, max(tries, 1))

    async def _request(self, work: Work, command: GenerateReply, window: int, name: str) -> ModelRequest:
        transcript = await self._transcript(command.run_id, command.at_version)
        room = max(window - command.max_output_tokens - OVERHEAD_TOKENS, window // 4)
        messages = build(transcript, room)
        tenant_id = work.message.envelope.tenant_id
        return ModelRequest(
            model=name,
            messages=tuple([await self._whole(tenant_id, message) for message in messages]),
            tools=offered(transcript),
            max_output_tokens=command.max_output_tokens,
        )

    async def _transcript(self, run_id: str, at_version: int) -> Transcript:
        """The conversation as of a version, kept between the calls of a run."""
        transcript = self._transcripts.get(run_id)
        if transcript is None or transcript.version > at_version:
            transcript = Transcript()
        while transcript.version < at_version:
            events = await self._log.read_stream(run_stream(run_id), transcript.version, 500)
            for stored in events[: at_version - transcript.version]:
                transcript.add(stored.decode())
            if not events:
                raise Unavailable("the run's stream is behind its own command")
        self._transcripts[run_id] = transcript
        self._transcripts.move_to_end(run_id)
        if len(self._transcripts) > MOST_TRANSCRIPTS:
            self._transcripts.popitem(last=False)
        return transcript

    async def _whole(self, tenant_id: str, message: ChatMessage) -> ChatMessage:
        """Arguments that were too long to travel are put back: vendors want the calls as they were made."""
        if not isinstance(message, AssistantMessage) or not any(call.arguments_ref for call in message.tool_calls):
            return message
        calls = [await resolve_arguments(self._blobs, tenant_id, call) for call in message.tool_calls]
        return message.model_copy(update={"tool_calls": tuple(calls)})

    async def _done(
        self, work: Work, command: GenerateReply, request: ModelRequest, reply: ModelReply, tries: int
    ) -> Ended:
        message, text_ref = await self._portable(work.message.envelope.tenant_id, reply.message)
        written = reply.message.model_dump_json().encode()
        fact = CallEnded(
            effect_id=command.effect_id,
            run_id=command.run_id,
            attempt=work.claim.attempt,
            outcome=Outcome.DONE,
            model=command.model,
            response_model=reply.response_model,
            request_digest=_request_digest(request),
            reply_digest=f"sha256:{sha256(written).hexdigest()}",
            finish_reason=reply.finish_reason,
            usage=reply.usage,
            cost_usd=reply.cost_usd,
            tries=tries,
            duration_seconds=work.elapsed_seconds,
        )
        answer = ProviderResult(
            effect_id=command.effect_id,
            run_id=command.run_id,
            attempt=work.claim.attempt,
            outcome=Outcome.DONE,
            message=message,
            text_ref=text_ref,
            finish_reason=reply.finish_reason,
            model=reply.response_model or command.model,
            usage=reply.usage,
            cost_usd=reply.cost_usd,
        )
        return Ended(call_stream(command.effect_id), fact, answer)

    async def _portable(self, tenant_id: str, message: AssistantMessage) -> tuple[AssistantMessage, str | None]:
        """The message with what is too long for a record put aside as artifacts."""
        text_ref: str | None = None
        text = message.text
        if len(text.encode()) > INLINE_BYTES:
            text_ref = await until_stored(partial(self._blobs.put, tenant_id, text.encode()))
            text = f"{text[: INLINE_BYTES // 4]}\n[…]"
        calls: list[ToolCall] = []
        room = INLINE_BYTES
        for call in message.tool_calls:
            size = len(call.arguments.encode())
            if size > room:
                arguments = call.arguments.encode()
                reference = await until_stored(partial(self._blobs.put, tenant_id, arguments))
                calls.append(call.model_copy(update={"arguments": "", "arguments_ref": reference}))
            else:
                room -= size
                calls.append(call)
        return AssistantMessage(text=text, tool_calls=tuple(calls)), text_ref

    def ended(self, work: Work, outcome: Outcome, error: BaseException | None) -> Ended:
        command = work.message.data
        assert isinstance(command, GenerateReply)
        usage = error.usage if isinstance(error, ProviderError) and error.usage is not None else Usage()
        reason = error.reason if isinstance(error, ProviderError) else getattr(error, "code", "")
        detail = error.detail if isinstance(error, CodeAgentError) else ""
        fact = CallEnded(
            effect_id=command.effect_id,
            run_id=command.run_id,
            attempt=work.claim.attempt,
            outcome=outcome,
            model=command.model,
            error_reason=reason or None,
            usage=usage,
            duration_seconds=work.elapsed_seconds,
        )
        answer = ProviderResult(
            effect_id=command.effect_id,
            run_id=command.run_id,
            attempt=work.claim.attempt,
            outcome=outcome,
            model=command.model,
            usage=usage,
            error_reason=reason,
            error=detail,
        )
        return Ended(call_stream(command.effect_id), fact, answer)


async def resolve_arguments(blobs: Blobs, tenant_id: str, call: ToolCall) -> ToolCall:
    """The call with its whole arguments inline."""
    if call.arguments_ref is None:
        return call
    arguments = await blobs.read(tenant_id, call.arguments_ref)
    return call.model_copy(update={"arguments": arguments.decode(), "arguments_ref": None})


def _request_digest(request: ModelRequest) -> str:
    digest = sha256(request.model.encode())
    for message in request.messages:
        digest.update(b"\x00" + message.model_dump_json().encode())
    for tool in request.tools:
        digest.update(b"\x01" + tool.model_dump_json().encode())
    return f"sha256:{digest.hexdigest()}"


def _observe(work: Work, model: str, usage: Usage, cost: Decimal | None, error: str) -> None:
    provider, _, name = model.partition("/")
    metrics.GENAI_DURATION.labels(provider, name, error).observe(work.elapsed_seconds)
    metrics.GENAI_TOKENS.labels(provider, name, "input").inc(usage.input_tokens)
    metrics.GENAI_TOKENS.labels(provider, name, "output").inc(usage.output_tokens)
    metrics.GENAI_COST.labels(provider, name).inc(float(cost or 0))
