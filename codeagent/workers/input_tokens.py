"""How many tokens of input a vendor will count at most: by bytes, and by what it counted for the call before."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256

from codeagent.messages.conversation import AssistantMessage, ChatMessage
from codeagent.providers.protocol import ModelRequest

FRAME_TOKENS = 64
"""Of each message and tool: roles, ids and braces, which vendors add."""
MOST_RUNS = 2_000


@dataclass(frozen=True, slots=True)
class _Counted:
    """What a vendor has counted for the first `messages` of a conversation."""

    messages: int
    digest: bytes
    tokens: int


class InputTokens:
    """Upper bounds. A conversation grows at its end: what its beginning comes to was counted by the call before, and
    only what is new is taken by its bytes, which are three or four times too many."""

    def __init__(self) -> None:
        self._counted: OrderedDict[tuple[str, str], _Counted] = OrderedDict()

    def most(self, run_id: str, label: str, request: ModelRequest) -> int:
        """Of the model `<provider>/<name>`: providers may count the same words differently, whatever they call their
        models. No token is shorter than a byte."""
        texts = [tool.model_dump_json() for tool in request.tools]
        whole = _bytes(request.messages) + sum(len(text.encode()) + FRAME_TOKENS for text in texts)
        before = self._counted.get((run_id, label))
        if before is None or before.digest != _digest(request, before.messages):
            return whole
        return min(whole, before.tokens + _bytes(request.messages[before.messages :]))

    def learn(self, run_id: str, label: str, request: ModelRequest, tokens: int) -> None:
        """What the vendor says that it has counted for the request of a run."""
        count = len(request.messages)
        self._counted[run_id, label] = _Counted(count, _digest(request, count), tokens)
        self._counted.move_to_end((run_id, label))
        if len(self._counted) > MOST_RUNS:
            self._counted.popitem(last=False)


def _bytes(messages: Iterable[ChatMessage]) -> int:
    total = 0
    for message in messages:
        total += len(message.text.encode()) + FRAME_TOKENS
        if isinstance(message, AssistantMessage):
            total += sum(len(f"{call.id}{call.name}{call.arguments}".encode()) for call in message.tool_calls)
    return total


def _digest(request: ModelRequest, count: int) -> bytes:
    """Of a request as far as its first messages: of the same model, and with the same tools."""
    digest = sha256(request.model.encode())
    for part in (*request.tools, *request.messages[:count]):
        digest.update(b"\x00" + part.model_dump_json().encode())
    return digest.digest()
