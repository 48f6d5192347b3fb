"""Gemini answers, built with the vendor's own types."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from google.genai.types import (
    Candidate,
    Content,
    FinishReason,
    FunctionCall,
    GenerateContentResponse,
    GenerateContentResponseUsageMetadata,
    Part,
)

from tests.servers.script import SECRET_TEXT, SIGNATURE, Finish, Reply, pieces

PATH = "/v1beta/models/{model}:streamGenerateContent"
KEEP_ALIVE = "\r\n"
UNKNOWN_EVENT = 'data: {"moodFeedback": {"mood": "tired"}}\r\n\r\n'

_FINISH: dict[Finish, str] = {
    "stop": "STOP",
    "tool_calls": "STOP",
    "length": "MAX_TOKENS",
    "content_filter": "SAFETY",
    "unknown": "TIRED",
}
_STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    413: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
}


def assistant_messages(body: dict[str, Any]) -> int:
    return sum(1 for content in body.get("contents", ()) if content.get("role") == "model")


def refusal(body: dict[str, Any]) -> str | None:
    """What the vendor says to a conversation that it does not take."""
    asked = answered = 0
    for content in body["contents"]:
        calls = [part for part in content["parts"] if "functionCall" in part]
        if calls and not calls[0].get("thoughtSignature"):
            return "Function call is missing a thought_signature in functionCall parts."
        asked += len(calls)
        answered += sum("functionResponse" in part for part in content["parts"])
    return None if asked == answered else "The number of function response parts does not fit the function call parts."


def error_body(status: int, code: str | None) -> dict[str, Any]:
    message = SECRET_TEXT
    if code == "context_length_exceeded":
        message = "The input token count (250000) exceeds the maximum number of tokens allowed (131072)."
    reasons = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": code}] if code else []
    known = _STATUSES.get(status, "UNKNOWN")
    return {"error": {"code": status, "message": message, "status": known, "details": reasons}}


def error_event(status: int, code: str | None) -> str:
    return f"data: {json.dumps(error_body(status, code))}\r\n\r\n"


def events(reply: Reply, turn: int, model: str, body: dict[str, Any]) -> Iterator[str]:
    """The answer as server-sent events. Calls come whole, and their arguments as an object."""

    def chunk(parts: list[Part], finish: str | None = None) -> str:
        reason = None if finish is None else FinishReason(finish)
        answer = GenerateContentResponse(
            candidates=[Candidate(content=Content(role="model", parts=parts), index=0, finish_reason=reason)],
            usage_metadata=_usage(reply, last=finish is not None) if reply.report_usage else None,
            model_version=model,
            response_id=f"gemini-{turn}",
        )
        return f"data: {answer.model_dump_json(by_alias=True, exclude_none=True)}\r\n\r\n"

    if reply.reasoning:
        yield chunk([Part(text=reply.reasoning, thought=True)])
    for text in pieces(reply.text):
        yield chunk([Part(text=text)])
    for index, call in enumerate(reply.calls):
        asked = FunctionCall(id=call.id or None, name=call.name, args=_object(call.arguments))
        signature = SIGNATURE.encode() if reply.reasoning and index == 0 else None
        yield chunk([Part(function_call=asked, thought_signature=signature)])
    yield chunk([Part(text="")], _FINISH[reply.finish_reason])


def _object(arguments: str) -> dict[str, Any]:
    document = json.loads(arguments or "{}")
    assert isinstance(document, dict)
    return document


def _usage(reply: Reply, last: bool) -> GenerateContentResponseUsageMetadata:
    """Gemini counts what a model thinks apart from what it says, and says how much so far with every piece."""
    said = reply.output_tokens - reply.reasoning_tokens
    return GenerateContentResponseUsageMetadata(
        prompt_token_count=reply.input_tokens,
        cached_content_token_count=reply.cache_read_tokens or None,
        thoughts_token_count=reply.reasoning_tokens or None,
        candidates_token_count=said if last else 1,
        total_token_count=reply.input_tokens + (reply.output_tokens if last else 1),
    )
