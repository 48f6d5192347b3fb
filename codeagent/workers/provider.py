"""Model calls: folds the conversation from the run's stream, asks the provider, streams, says what it used and cost."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from codeagent.agent import compaction as compacting
from codeagent.agent.exchanges import size
from codeagent.agent.prompt import Transcript, build, compaction, offered
from codeagent.errors import CodeAgentError, NotFound, Rejected, Unavailable
from codeagent.eventlog.log import EventLog
from codeagent.messages.commands import GenerateReply
from codeagent.messages.conversation import AssistantMessage, ChatMessage, ToolCall
from codeagent.messages.events import InputReceived, RunSubmitted
from codeagent.messages.ids import call_stream, run_stream
from codeagent.messages.loop_events import Compaction
from codeagent.messages.results import ProviderResult
from codeagent.messages.values import BASE_CHECKPOINT, Outcome
from codeagent.providers.protocol import ModelReply, ModelRequest, ProviderError
from codeagent.providers.retry import RetryPolicy
from codeagent.telemetry.traces import span
from codeagent.workers.call_cache import CallCache
from codeagent.workers.call_documents import reply_document, request_document
from codeagent.workers.call_record import CallRecord
from codeagent.workers.deltas import DeltaSender, Send, unsent
from codeagent.workers.effect import Work
from codeagent.workers.ended import Ended
from codeagent.workers.fallbacks import PATIENCE_SECONDS, Candidate, Resolve, candidates, successor
from codeagent.workers.replayed import check_replayed, is_outlived
from codeagent.workers.spending import Spending
from codeagent.workers.storing import until_stored

INLINE_BYTES = 24_000
"""Longer texts and arguments become artifacts: an event stays well below what a record may hold."""

MOST_TRANSCRIPTS = 2_000
MOST_TRIES = RetryPolicy().max_attempts
"""Of one model in one claim."""
OVERHEAD_TOKENS = 2_000
"""Left in the window for the tools' own descriptions."""


class Blobs(Protocol):
    """The artifact store, as far as workers need it."""

    async def put(self, tenant_id: str, data: bytes) -> str: ...

    async def read(self, tenant_id: str, digest: str, limit_bytes: int | None = None) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Question:
    """What a model is asked, and what of the conversation is left out for the first time."""

    request: ModelRequest
    left_out: Compaction | None


class ProviderPerformer:
    """Performs `provider.generate`. `resolve` gives the model behind `<provider>/<name>`; it may raise. `is_live` says
    whether a tenant sees text while it is written, `record_calls` whether all that models are asked and reply becomes
    artifacts; `cache` gives again what was replied before, to those who want it."""

    kind = "provider"

    def __init__(  # noqa: PLR0913  all that a worker is composed of
        self,
        log_reader: EventLog,
        blobs: Blobs,
        resolve: Resolve,
        send_delta: Send,
        *,
        answers_topic: str,
        spending: Spending | None = None,
        is_live: Callable[[str], bool] = lambda _: True,
        record_calls: bool = False,
        cache: CallCache | None = None,
    ) -> None:
        self.answers_topic = answers_topic
        self._log = log_reader
        self._blobs = blobs
        self._resolve = resolve
        self._send_delta = send_delta
        self._spending = spending or Spending()
        self._is_live = is_live
        self._record_calls = record_calls
        self._cache = cache or CallCache()
        self._transcripts: OrderedDict[str, Transcript] = OrderedDict()

    async def perform(self, work: Work) -> Ended:
        command = work.message.data
        assert isinstance(command, GenerateReply)
        labels = (command.model, *(command.fallbacks or ()))
        chain = candidates(labels, self._resolve)
        send = self._send_delta if self._is_live(work.message.envelope.tenant_id) else unsent
        deltas = DeltaSender(send, "message.delta", command.run_id, command.effect_id)
        before = (work.claim.attempt - 1) * MOST_TRIES * len(labels)
        record = CallRecord(work, began=lambda tries: deltas.begin_attempt(before + tries))
        if chain[0].label != command.model:
            record.switched(command.model, chain[0].label, "not_found")
        try:
            asked, question, reply = await self._first_reply(work, chain, record, deltas)
        except ProviderError:
            await self._spending.settle(work.claim, record)
            raise
        finally:
            await deltas.close()
        await self._spending.settle(work.claim, record)
        if not record.cached:
            self._spending.learn(command.run_id, question.request, reply.usage)
        return await self._done(work, asked, question, reply, record)

    async def _first_reply(
        self, work: Work, chain: Sequence[Candidate], record: CallRecord, deltas: DeltaSender
    ) -> tuple[Candidate, Question, ModelReply]:
        """Asks one model after the other until one replies. Raises the last one's error, which is retryable if that of
        any was: what may pass is tried again as another attempt, the rest ends the call."""
        command = work.message.data
        assert isinstance(command, GenerateReply)

        async def on_text(text: str) -> None:
            await deltas.write("text", text)

        place, retryable = 0, False
        while True:
            asked = chain[place]
            question = await self._question(work, command, asked.window, asked.name)
            document = await self._asks(work, record, question.request)
            run = (await self._transcript(work, command)).spender
            slot = self._cache.slot(work.message.envelope.tenant_id, run, asked.label, document)
            if (kept := await self._cache.recall(slot, question.request)) is not None:
                record.recalled()
                await deltas.write_whole("text", kept.message.text)
                return asked, question, kept
            patience = PATIENCE_SECONDS if place + 1 < len(chain) else math.inf
            admit = partial(self._spending.reserve, work, run, asked.price, record)
            try:
                with span(f"chat {asked.label}", attributes={"gen_ai.operation.name": "chat"}):
                    reply = await asked.model.generate(question.request, on_text, record, patience, admit)
                await self._cache.keep(slot, question.request, reply)
                return asked, question, reply
            except ProviderError as error:
                retryable = retryable or error.retryable
                following = successor(error, chain, place)
                if following is None:
                    error.retryable = retryable  # type: ignore[misc]  # the same models may answer in a moment
                    raise
                record.switched(asked.label, chain[following].label, error.reason)
                place = following

    async def _asks(self, work: Work, record: CallRecord, request: ModelRequest) -> bytes:
        """Tells the record; the request as a document."""
        document = request_document(request)
        if self._record_calls:
            await until_stored(partial(self._blobs.put, work.message.envelope.tenant_id, document))
        record.asks(document, recorded=self._record_calls)
        return document

    async def _question(self, work: Work, command: GenerateReply, window: int, name: str) -> Question:
        transcript = await self._transcript(work, command)
        tenant_id = work.message.envelope.tenant_id
        room = max(window - command.max_output_tokens - OVERHEAD_TOKENS, window // 4)
        left_out = compaction(transcript, room)
        now = left_out or transcript.compaction
        diff = b""
        if now is not None and now.exchanges_until and now.checkpoint != BASE_CHECKPOINT:
            diff = await self._blobs.read(tenant_id, now.checkpoint)
        messages = build(transcript, room, now, diff.decode(errors="replace"))
        left = max(compacting.characters(room) - size(messages), 0)
        request = ModelRequest(
            model=name,
            messages=tuple([await self._whole(tenant_id, message, left) for message in messages]),
            tools=offered(transcript),
            max_output_tokens=command.max_output_tokens,
        )
        return Question(request, left_out)

    async def _transcript(self, work: Work, command: GenerateReply) -> Transcript:
        """The conversation as of the command's version, kept between the calls of a run."""
        run_id, at_version = command.run_id, command.at_version
        transcript = self._transcripts.pop(run_id, None)
        if transcript is None or transcript.version > at_version or await is_outlived(self._log, transcript):
            transcript = Transcript()
        await self._read(transcript, work.message.envelope.tenant_id, run_id, at_version)
        await check_replayed(self._log, transcript.submitted)
        self._transcripts[run_id] = transcript
        if len(self._transcripts) > MOST_TRANSCRIPTS:
            self._transcripts.popitem(last=False)
        return transcript

    async def _read(self, transcript: Transcript, tenant_id: str, run_id: str, at_version: int) -> None:
        """Reads on, up to a version. What a run replays is its tenant's, whatever its command says."""
        while transcript.version < at_version:
            events = await self._log.read_stream(run_stream(run_id), transcript.version, 500)
            for stored in events[: at_version - transcript.version]:
                if stored.tenant_id != tenant_id:
                    raise NotFound("There is no such run.")
                event = stored.decode()
                transcript.add(event)
                if isinstance(event, InputReceived) and event.comment and stored.key_id is not None:
                    transcript.of_others.add(stored.key_id)
                if isinstance(event, RunSubmitted) and event.replays is not None:
                    replayed = Transcript()
                    await self._read(replayed, tenant_id, event.replays.run_id, event.replays.until_version)
                    transcript.follow(replayed)
            if not events:
                raise Unavailable("the run's stream is behind its own command")

    async def _whole(self, tenant_id: str, message: ChatMessage, most: int) -> ChatMessage:
        """Arguments that were too long to travel are put back, since vendors want the calls as they were made; of those
        that have more than `most` bytes the model is told that they were."""
        if not isinstance(message, AssistantMessage) or not any(call.arguments_ref for call in message.tool_calls):
            return message
        calls = []
        for call in message.tool_calls:
            try:
                whole = await resolve_arguments(self._blobs, tenant_id, call, most)
            except Rejected as error:
                if error.code != "payload_too_large":
                    raise
                whole = compacting.brief(call)
            calls.append(whole)
            most = max(most - len(whole.arguments.encode()), 0) if call.arguments_ref else most
        return message.model_copy(update={"tool_calls": tuple(calls)})

    async def _done(
        self, work: Work, asked: Candidate, question: Question, reply: ModelReply, record: CallRecord
    ) -> Ended:
        effect_id, run_id = work.claim.effect_id, work.message.envelope.key
        message, text_ref = await self._portable(work.message.envelope.tenant_id, reply.message)
        if record.recorded:
            await until_stored(partial(self._blobs.put, work.message.envelope.tenant_id, reply_document(reply)))
        fact = record.ended(Outcome.DONE, asked.label, reply)
        answer = ProviderResult(
            effect_id=effect_id,
            run_id=run_id,
            attempt=work.claim.attempt,
            outcome=Outcome.DONE,
            message=message,
            text_ref=text_ref,
            finish_reason=reply.finish_reason,
            model=reply.response_model or asked.label,
            usage=record.usage,
            cost_usd=record.cost_usd,
            compaction=question.left_out,
        )
        return Ended(call_stream(effect_id), fact, answer, before=record.facts(run_id))

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
        record = CallRecord(work)
        reason = error.reason if isinstance(error, ProviderError) else getattr(error, "code", "")
        detail = error.detail if isinstance(error, CodeAgentError) else ""
        fact = record.ended(outcome, reason=reason or None)
        answer = ProviderResult(
            effect_id=command.effect_id,
            run_id=command.run_id,
            attempt=work.claim.attempt,
            outcome=outcome,
            model=record.model or command.model,
            usage=record.usage,
            cost_usd=record.cost_usd,
            error_reason=reason,
            error=detail,
        )
        return Ended(call_stream(command.effect_id), fact, answer, before=record.facts(command.run_id))


async def resolve_arguments(blobs: Blobs, tenant_id: str, call: ToolCall, limit_bytes: int | None = None) -> ToolCall:
    """The call with its whole arguments inline. Raises `Rejected` (`payload_too_large`)."""
    if call.arguments_ref is None:
        return call
    arguments = await blobs.read(tenant_id, call.arguments_ref, limit_bytes)
    return call.model_copy(update={"arguments": arguments.decode(), "arguments_ref": None})
