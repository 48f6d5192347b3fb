"""What the agent's loop tells of itself on a run's stream: what its model is told beside the task, and what less of."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal
from uuid import UUID

from codeagent.messages.conversation import Data
from codeagent.messages.envelope import Event
from codeagent.messages.guidance import Guidance
from codeagent.messages.personal import CONTENT_DIGEST

StuckPattern = Literal["repeated_calls", "failing_calls", "no_progress"]


class RunNudged(Event):
    """The model's newest replies lead nowhere, which it is told in the words of `message` before it is asked again.

    `replies` are so many of the newest that fit `pattern`; `period` is how many of them make one round, where they
    repeat each other. `tools` are those that the newest reply called.
    """

    NAME: ClassVar[str] = "run.nudged"

    pattern: StuckPattern
    replies: int
    period: int = 1
    tools: tuple[str, ...] = ()
    message: str


class Compaction(Data):
    """How far a run's model is told less of what was. Both places are versions of the run's stream, which count on from
    the one that it replays: of exchanges up to `outputs_until` the long outputs and arguments are left out, those up to
    `exchanges_until` are told as a recap with the diff of `checkpoint`. `before_tokens` and `after_tokens` are
    estimates."""

    outputs_until: int = 0
    exchanges_until: int = 0
    checkpoint: Annotated[str, CONTENT_DIGEST] = ""
    before_tokens: int = 0
    after_tokens: int = 0


class RunCompacted(Event):
    """The conversation had come too close to the window of the run's model. From the call `effect_id` on it is told as
    `compaction` says."""

    NAME: ClassVar[str] = "run.compacted"

    effect_id: UUID
    compaction: Compaction


class RunGuidanceFound(Event):
    """The files that the run starts from have words for agents, which its model is told as the repository's."""

    NAME: ClassVar[str] = "run.guidance_found"

    guidance: Guidance
