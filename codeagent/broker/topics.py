"""The topics, by name. What each one holds, how long and for whom stands in `topics/*.yaml`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

RUN_COMMANDS = "codeagent.run.commands.v1"
RUN_EVENTS = "codeagent.run.events.v1"
RUN_DELTAS = "codeagent.run.deltas.v1"
PROVIDER_COMMANDS = "codeagent.provider.commands.v1"
PROVIDER_EVENTS = "codeagent.provider.events.v1"
SANDBOX_COMMANDS = "codeagent.sandbox.commands.v1"
SANDBOX_EVENTS = "codeagent.sandbox.events.v1"
AUDIT_CHECKPOINTS = "codeagent.audit.checkpoints.v1"

AGENT_WORKER = "agent-worker"
PROVIDER_WORKER = "provider-worker"
SANDBOX_WORKER = "sandbox-worker"

AGENT_INPUTS = (RUN_COMMANDS, PROVIDER_EVENTS, SANDBOX_EVENTS)
"""Equal in partitions, so that a run's commands and replies reach the same worker."""

EFFECT_TOPICS = {
    "provider": PROVIDER_COMMANDS,
    "mcp": PROVIDER_COMMANDS,
    "sandbox": SANDBOX_COMMANDS,
    "timer": RUN_COMMANDS,
}
"""Where the command of an effect of each kind goes. What asks servers outside goes to the workers that have the keys to
them."""

Profile = Literal["dev", "medium", "large"]


def dead_letter_topic(topic: str, group: str) -> str:
    return f"{topic}.{group}.dlq"


class TopicDefinition(BaseModel):
    """One file of `topics/`. Sizes in bytes; retention in milliseconds, as Kafka has it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z0-9.-]+$")
    description: str
    key: str
    partitions: dict[Profile, int]
    config: dict[str, str]
    messages: tuple[str, ...]
    writers: tuple[str, ...]
    readers: tuple[str, ...]
    dead_letters: bool = False
    """Whether every reader that is a consumer group has a dead-letter topic for what it could not handle."""

    def dead_letter_topics(self) -> tuple[str, ...]:
        return tuple(dead_letter_topic(self.name, reader) for reader in self.readers) if self.dead_letters else ()


def load_topics(folder: Path) -> list[TopicDefinition]:
    """Every definition in a folder, by name. Raises `ValueError` naming the file that is wrong."""
    topics: list[TopicDefinition] = []
    for path in sorted(folder.glob("*.yaml")):
        document: Any = yaml.safe_load(path.read_text())
        try:
            topics.append(TopicDefinition.model_validate(document))
        except ValueError as error:
            raise ValueError(f"{path.name}: {error}") from error
    if not topics:
        raise ValueError(f"no topic definitions in {folder}")
    return topics
