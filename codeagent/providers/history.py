"""Makes a conversation acceptable to every vendor: each tool call has one id and one answer, in order.

Pure and deterministic: the same conversation always comes out the same, so a vendor's prompt cache keeps working.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence

from pydantic_core import from_json

from codeagent.messages.conversation import AssistantMessage, ChatMessage, ToolCall, ToolMessage, UserMessage

NO_ANSWER = "No result was recorded for this call."
_USABLE_ID = re.compile(r"[A-Za-z0-9_-]{1,40}")
_GENERATED_ID = re.compile(r"pyd_ai_[0-9a-f]{32}")
_UNUSABLE_IN_NAME = re.compile(r"[^A-Za-z0-9_-]")


def repair(messages: Sequence[ChatMessage]) -> tuple[ChatMessage, ...]:
    """The conversation with unique tool call ids, every call answered right after it, and no text a vendor refuses.

    An answer without its call becomes a user message, so that nothing the model was told is lost.
    """
    repaired: list[ChatMessage] = []
    seen: set[str] = set()
    open_calls = _OpenCalls()
    for position, message in enumerate(messages):
        if isinstance(message, AssistantMessage):
            repaired.extend(open_calls.close())
            calls = tuple(map(_sendable, with_ids(message.tool_calls, seen, position)))
            text = clean(message.text)
            if text.strip() or calls:
                repaired.append(AssistantMessage(text=text, tool_calls=calls))
            open_calls = _OpenCalls(zip(message.tool_calls, calls, strict=True))
        elif isinstance(message, ToolMessage):
            repaired.extend(open_calls.answer(message))
        else:
            text = clean(message.text)
            repaired.extend(open_calls.hold(message.model_copy(update={"text": text if text.strip() else "(empty)"})))
    repaired.extend(open_calls.close())
    return tuple(repaired)


def with_ids(calls: Iterable[ToolCall], seen: set[str], position: int) -> tuple[ToolCall, ...]:
    """`calls` with usable ids, unique among themselves and `seen`, which grows. `position` names the new ones."""
    named: list[ToolCall] = []
    for number, call in enumerate(calls):
        usable = _USABLE_ID.fullmatch(call.id) and not _GENERATED_ID.fullmatch(call.id) and call.id not in seen
        identifier = call.id if usable else f"call_{position}_{number}"
        while identifier in seen:
            identifier += "x"
        seen.add(identifier)
        named.append(call if identifier == call.id else call.model_copy(update={"id": identifier}))
    return tuple(named)


def call_ids(messages: Iterable[ChatMessage]) -> set[str]:
    """Every tool call id that occurs in a conversation."""
    return {call.id for message in messages if isinstance(message, AssistantMessage) for call in message.tool_calls}


def clean(text: str) -> str:
    """`text` without lone surrogates, which cannot be sent as UTF-8."""
    return text.encode("utf-8", "replace").decode("utf-8")


class _OpenCalls:
    """The calls of the last assistant message, until each has its answer; what comes in between waits."""

    def __init__(self, calls: Iterable[tuple[ToolCall, ToolCall]] = ()) -> None:
        self._calls = list(calls)
        self._answers: dict[str, ToolMessage] = {}
        self._held: list[ChatMessage] = []

    def answer(self, message: ToolMessage) -> list[ChatMessage]:
        text = clean(message.text)
        for asked, call in self._calls:
            if asked.id == message.tool_call_id and call.id not in self._answers:
                update = {"tool_call_id": call.id, "name": call.name, "text": text or "(no output)"}
                self._answers[call.id] = message.model_copy(update=update)
                return self.close() if len(self._answers) == len(self._calls) else []
        return self.hold(UserMessage(text=f"Result of an earlier call of the tool {clean(message.name)!r}:\n{text}"))

    def hold(self, message: ChatMessage) -> list[ChatMessage]:
        if not self._calls:
            return [message]
        self._held.append(message)
        return []

    def close(self) -> list[ChatMessage]:
        """The answers in the order of the calls, then what was held back."""
        answers: list[ChatMessage] = [
            self._answers.get(call.id)
            or ToolMessage(tool_call_id=call.id, name=call.name, text=NO_ANSWER, is_error=True)
            for _, call in self._calls
        ]
        held, self._calls, self._held = self._held, [], []
        return answers + held


def _is_object(arguments: str) -> bool:
    """Whether every vendor takes it: some are sent the text, some the object, which has to survive being written."""
    try:
        document = from_json(arguments)
        json.dumps(document, allow_nan=False)
    except ValueError:
        return False
    return isinstance(document, dict)


def _sendable(call: ToolCall) -> ToolCall:
    """A name and arguments every vendor takes back: what is not a JSON object is quoted inside one."""
    arguments = clean(call.arguments)
    if not _is_object(arguments):
        arguments = json.dumps({"malformed_arguments": arguments}) if arguments.strip() else "{}"
    name = _UNUSABLE_IN_NAME.sub("_", call.name)[:64] or "unnamed"
    return call.model_copy(update={"name": name, "arguments": arguments})
