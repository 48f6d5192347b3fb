"""Whether a run gets anywhere: what the model's replies have led to, folded from the run's stream in bounded memory.

The unit is a reply with all that its calls brought, so that calls which run side by side count the same in whatever
order they end.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from hashlib import sha256

from codeagent.messages import events
from codeagent.messages.conversation import ToolCall
from codeagent.messages.values import BASE_CHECKPOINT

PERIODS = (1, 2, 3)
"""Rounds of so many replies are recognised."""
MOST_KNOWN = 64
MOST_TOOLS = 8
_DIGITS = b"0123456789"


@dataclass(frozen=True, slots=True)
class Reply:
    """What one reply has brought so far. `told` and `known_as` are sums of digests, which know no order."""

    told: int = 0
    """Its calls with their whole answers."""
    known_as: int = 0
    """The same without digits: a duration or a counter alone is nothing new."""
    answers: int = 0
    failures: int = 0
    tools: tuple[str, ...] = ()

    def said(self, text: str) -> Reply:
        """Of a reply that calls nothing, its words are what it brings."""
        return self._with(_digest("", text), _digest("", _without_digits(text)))

    def answered(self, name: str, call: ToolCall | None, answer: str, *, failed: bool) -> Reply:
        asked = "" if call is None else call.arguments_ref or call.arguments
        brought = self._with(_digest(name, asked, answer), _digest(name, asked, _without_digits(answer)))
        tools = brought.tools if name in brought.tools else tuple(sorted((*brought.tools, name[:100])))[:MOST_TOOLS]
        return replace(brought, answers=self.answers + 1, failures=self.failures + failed, tools=tools)

    def _with(self, told: int, known_as: int) -> Reply:
        return replace(self, told=self.told + told, known_as=self.known_as + known_as)


@dataclass(frozen=True, slots=True)
class Progress:
    """`replies` counts those that are over; `nudged_at` is that count when the model was last told."""

    replies: int = 0
    open: Reply | None = None
    """The reply whose calls are being carried out."""
    checkpoint: str = BASE_CHECKPOINT
    newest: tuple[tuple[int, str], ...] = ()
    """Of the newest replies, newest last: what they were told, and the files after it."""
    repeats: tuple[int, ...] = tuple(0 for _ in PERIODS)
    """For each period, how many replies in a row were as the one so many replies before."""
    failing: int = 0
    """Replies in a row of which every call failed and no file changed."""
    idle: int = 0
    """Replies in a row that neither led to files nor told anything that had not been there before."""
    tools: tuple[str, ...] = ()
    known: tuple[int | str, ...] = field(default=(BASE_CHECKPOINT,))
    """Files and answers that have been there, the newest so many of them."""
    nudged_at: int | None = None

    def begun(self, event: events.MessageCompleted) -> Progress:
        over, reply = self.over(), Reply()
        return replace(over, open=reply if event.tool_calls else reply.said(event.text))

    def completed(self, event: events.ToolCallCompleted, call: ToolCall | None) -> Progress:
        # Not by the exit code: a search that finds nothing has told something.
        reply = (self.open or Reply()).answered(event.name, call, event.output, failed=event.reason != "ok")
        return replace(self, open=reply, checkpoint=event.checkpoint)

    def failed(self, event: events.ToolCallFailed, call: ToolCall | None) -> Progress:
        return replace(self, open=(self.open or Reply()).answered(event.name, call, event.error, failed=True))

    def nudged(self) -> Progress:
        over = self.over()
        return replace(over, nudged_at=over.replies)

    def over(self) -> Progress:
        """With the open reply counted in, now that its calls are all answered."""
        reply = self.open
        if reply is None:
            return self
        outcome = (reply.told, self.checkpoint)
        repeats = tuple(
            count + 1 if len(self.newest) >= period and self.newest[-period] == outcome else 0
            for period, count in zip(PERIODS, self.repeats, strict=True)
        )
        is_changed = self.checkpoint not in self.known
        is_new = is_changed or reply.known_as not in self.known
        known = tuple(dict.fromkeys((*self.known, self.checkpoint, reply.known_as)))[-MOST_KNOWN:]
        all_failed = 0 < reply.answers == reply.failures
        return replace(
            self,
            replies=self.replies + 1,
            open=None,
            newest=(*self.newest, outcome)[-PERIODS[-1] :],
            repeats=repeats,
            failing=self.failing + 1 if all_failed and not is_changed else 0,
            idle=0 if is_new else self.idle + 1,
            tools=reply.tools,
            known=known,
        )


def _digest(*parts: str) -> int:
    seen = sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        seen.update(len(data).to_bytes(8, "big") + data)
    return int.from_bytes(seen.digest()[:16], "big")


def _without_digits(text: str) -> str:
    return text.encode("utf-8", "surrogatepass").translate(None, _DIGITS).decode("utf-8", "surrogatepass")
