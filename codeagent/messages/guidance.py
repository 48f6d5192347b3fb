"""What a repository says to agents that work on it: words of whoever could change it, and nothing more."""

from __future__ import annotations

from typing import Annotated

from codeagent.messages.conversation import Data
from codeagent.messages.personal import GUIDANCE
from codeagent.messages.values import Digest


class GuidanceFile(Data):
    """An `AGENTS.md`. `text` is what a model is told of it, empty for those below the root; `digest` is of all."""

    path: str
    digest: Digest
    size_bytes: int
    text: str = ""


class Skill(Data):
    """A `SKILL.md`, by what its front matter says. A model reads the rest itself if it wants to."""

    name: str
    description: str
    path: str
    digest: Digest


class Guidance(Data):
    """Of the files that a run starts from."""

    files: Annotated[tuple[GuidanceFile, ...], GUIDANCE] = ()
    skills: Annotated[tuple[Skill, ...], GUIDANCE] = ()
