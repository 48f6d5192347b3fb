"""OpenAI Responses answers, built with the vendor's own types."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count
from typing import Any

from openai.types.responses import (
    Response,
    ResponseCompletedEvent,
    ResponseContentPartAddedEvent,
    ResponseCreatedEvent,
    ResponseErrorEvent,
    ResponseFunctionCallArgumentsDeltaEvent,
    ResponseFunctionCallArgumentsDoneEvent,
    ResponseFunctionToolCall,
    ResponseIncompleteEvent,
    ResponseOutputItemAddedEvent,
    ResponseOutputItemDoneEvent,
    ResponseOutputMessage,
    ResponseOutputText,
    ResponseReasoningItem,
    ResponseReasoningSummaryTextDeltaEvent,
    ResponseTextDeltaEvent,
    ResponseTextDoneEvent,
    ResponseUsage,
)
from openai.types.responses.response import IncompleteDetails
from openai.types.responses.response_reasoning_item import Summary
from openai.types.responses.response_usage import InputTokensDetails, OutputTokensDetails
from pydantic import BaseModel

from tests.servers import openai_chat
from tests.servers.script import SECRET_TEXT, SIGNATURE, Reply, pieces

PATH = "/v1/responses"
KEEP_ALIVE = ": keep-alive\n\n"
UNKNOWN_EVENT = 'event: response.mood.changed\ndata: {"type": "response.mood.changed", "sequence_number": 1}\n\n'

error_body = openai_chat.error_body


def assistant_messages(body: dict[str, Any]) -> int:
    """Answers so far: the turns of the model between what it was told."""
    told = [_said(item) for item in body.get("input", ()) if isinstance(item, dict)]
    return sum(1 for before, now in zip([False, *told], told, strict=False) if now and not before)


def refusal(body: dict[str, Any]) -> str | None:
    """What the vendor says to a conversation that it does not take."""
    asked, answered = set(), set()
    before: dict[str, Any] = {}
    for item in body["input"]:
        if item.get("type") == "function_call":
            asked.add(item["call_id"])
            if str(item.get("id", "")).startswith("fc_") and before.get("type") != "reasoning":
                return f"Item '{item['id']}' was provided without its required 'reasoning' item"
        elif item.get("type") == "function_call_output":
            answered.add(item["call_id"])
        before = item
    return "No tool output found for a function call" if asked - answered else None


def error_event(status: int, code: str | None) -> str:
    code = code or {429: "rate_limit_exceeded"}.get(status, "server_error")
    return _event(ResponseErrorEvent(type="error", code=code, message=SECRET_TEXT, sequence_number=99))


def whole(reply: Reply, turn: int, model: str) -> dict[str, Any]:
    """The answer to a request without streaming."""
    return _response(reply, turn, model).model_dump(mode="json", exclude_none=True)


def events(reply: Reply, turn: int, model: str, body: dict[str, Any]) -> Iterator[str]:
    """The answer as server-sent events."""
    number = count()
    begun = _response(reply, turn, model)
    begun.output, begun.status, begun.usage, begun.incomplete_details = [], "in_progress", None, None
    yield _event(ResponseCreatedEvent(type="response.created", response=begun, sequence_number=next(number)))
    whole_answer = _response(reply, turn, model)
    for index, item in enumerate(whole_answer.output):
        for event in _item_events(item, index, number):
            yield _event(event)
    end: ResponseCompletedEvent | ResponseIncompleteEvent
    if whole_answer.status == "completed":
        end = ResponseCompletedEvent(type="response.completed", response=whole_answer, sequence_number=next(number))
    else:
        end = ResponseIncompleteEvent(type="response.incomplete", response=whole_answer, sequence_number=next(number))
    yield _event(end)


def _said(item: dict[str, Any]) -> bool:
    return item.get("role") == "assistant" or item.get("type") in {"function_call", "reasoning"}


def _item_events(item: Any, index: int, number: Iterator[int]) -> Iterator[BaseModel]:
    place = {"output_index": index, "item_id": item.id}

    def at(**fields: Any) -> dict[str, Any]:
        return {**place, "sequence_number": next(number), **fields}

    match item:
        case ResponseReasoningItem():
            yield _added(item.model_copy(update={"encrypted_content": None, "summary": []}), index, next(number))
            for part in pieces(item.summary[0].text):
                yield ResponseReasoningSummaryTextDeltaEvent(
                    type="response.reasoning_summary_text.delta", delta=part, **at(summary_index=0)
                )
        case ResponseOutputMessage():
            text = item.content[0]
            assert isinstance(text, ResponseOutputText)
            yield _added(item.model_copy(update={"content": [], "status": "in_progress"}), index, next(number))
            empty = ResponseOutputText(type="output_text", text="", annotations=[])
            yield ResponseContentPartAddedEvent(type="response.content_part.added", part=empty, **at(content_index=0))
            for part in pieces(text.text):
                yield ResponseTextDeltaEvent(
                    type="response.output_text.delta", delta=part, logprobs=[], **at(content_index=0)
                )
            yield ResponseTextDoneEvent(
                type="response.output_text.done", text=text.text, logprobs=[], **at(content_index=0)
            )
        case ResponseFunctionToolCall():
            yield _added(item.model_copy(update={"arguments": "", "status": "in_progress"}), index, next(number))
            for part in pieces(item.arguments):
                yield ResponseFunctionCallArgumentsDeltaEvent(
                    type="response.function_call_arguments.delta", delta=part, **at()
                )
            yield ResponseFunctionCallArgumentsDoneEvent(
                type="response.function_call_arguments.done", arguments=item.arguments, **at()
            )
    yield ResponseOutputItemDoneEvent(
        type="response.output_item.done", item=item, output_index=index, sequence_number=next(number)
    )


def _added(item: Any, index: int, number: int) -> BaseModel:
    return ResponseOutputItemAddedEvent(
        type="response.output_item.added", item=item, output_index=index, sequence_number=number
    )


def _response(reply: Reply, turn: int, model: str) -> Response:
    finish = reply.finish_reason
    reasons = {"length": "max_output_tokens", "content_filter": "content_filter", "unknown": "tired"}
    # An unknown reason is one that the SDK's types do not have.
    incomplete = IncompleteDetails.construct(reason=reasons[finish]) if finish in reasons else None  # type: ignore[arg-type]
    return Response(
        id=f"resp_{turn}",
        created_at=1_760_000_000,
        model=model,
        object="response",
        output=list(_output(reply, turn)),
        parallel_tool_calls=True,
        tool_choice="auto",
        tools=[],
        status="completed" if incomplete is None else "incomplete",
        usage=_usage(reply) if reply.report_usage else None,
    ).model_copy(update={"incomplete_details": incomplete})


def _output(reply: Reply, turn: int) -> Iterator[Any]:
    if reply.reasoning:
        summary = [Summary(type="summary_text", text=reply.reasoning)]
        yield ResponseReasoningItem(
            id=f"rs_{turn}", type="reasoning", summary=summary, encrypted_content=SIGNATURE, status="completed"
        )
    if reply.text:
        text = ResponseOutputText(type="output_text", text=reply.text, annotations=[])
        yield ResponseOutputMessage(
            id=f"msg_{turn}", type="message", role="assistant", status="completed", content=[text]
        )
    for index, call in enumerate(reply.calls):
        yield ResponseFunctionToolCall(
            id=f"fc_{turn}_{index}",
            type="function_call",
            call_id=call.id,
            name=call.name,
            arguments=call.arguments,
            status="completed",
        )


def _event(event: BaseModel) -> str:
    payload = event.model_dump(mode="json", exclude_none=True, warnings=False)
    return f"event: {payload['type']}\ndata: {json.dumps(payload)}\n\n"


def _usage(reply: Reply) -> ResponseUsage:
    return ResponseUsage(
        input_tokens=reply.input_tokens,
        input_tokens_details=InputTokensDetails(
            cached_tokens=reply.cache_read_tokens, cache_write_tokens=reply.cache_write_tokens
        ),
        output_tokens=reply.output_tokens,
        output_tokens_details=OutputTokensDetails(reasoning_tokens=reply.reasoning_tokens),
        total_tokens=reply.input_tokens + reply.output_tokens,
    )
