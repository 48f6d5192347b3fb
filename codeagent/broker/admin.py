"""Reconciles a cluster with the topic definitions: what is missing is made, what differs is changed or reported."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from codeagent.broker.connection import KafkaConnection
from codeagent.broker.publisher import MOST_BYTES
from codeagent.broker.topics import Profile, TopicDefinition
from codeagent.errors import Unavailable

DEAD_LETTER_CONFIG = {"cleanup.policy": "delete", "retention.ms": "2592000000", "max.message.bytes": str(MOST_BYTES)}


@dataclass(frozen=True, slots=True)
class Wanted:
    name: str
    partitions: int
    config: dict[str, str]


@dataclass(frozen=True, slots=True)
class Change:
    """One difference. `kind` is create, add_partitions, set_config, or conflict, which only a new topic can solve."""

    topic: str
    kind: str
    detail: str


def wanted_topics(definitions: Sequence[TopicDefinition], profile: Profile) -> list[Wanted]:
    """The topics to have, dead letters included."""
    wanted: list[Wanted] = []
    for definition in definitions:
        wanted.append(Wanted(definition.name, definition.partitions[profile], dict(definition.config)))
        wanted.extend(Wanted(name, 1, dict(DEAD_LETTER_CONFIG)) for name in definition.dead_letter_topics())
    return wanted


async def partition_counts(connection: KafkaConnection, topics: Sequence[str]) -> dict[str, int]:
    """How many partitions each topic has. Raises `Unavailable` while one is missing."""
    async with _Client(connection) as client:
        described = await client.describe_topics(list(topics))
    counts = {item["topic"]: len(item["partitions"]) for item in described}
    missing = [topic for topic in topics if not counts.get(topic)]
    if missing:
        raise Unavailable(f"the broker has no topic {missing[0]}", code="broker_unavailable")
    return counts


class TopicAdmin:
    """One connection to the cluster's controller. `plan` reads, `apply` changes."""

    def __init__(self, connection: KafkaConnection, *, replication: int, configurable: bool = True) -> None:
        """`configurable` is off for the embedded broker, which keeps no topic configuration."""
        self._connection = connection
        self._replication = replication
        self._configurable = configurable

    async def plan(self, wanted: Sequence[Wanted]) -> list[Change]:
        async with _Client(self._connection) as client:
            return await self._differences(client, wanted)

    async def apply(self, wanted: Sequence[Wanted]) -> list[Change]:
        """Carries out the plan and returns what was done. Conflicts are returned and left alone."""
        async with _Client(self._connection) as client:
            changes = await self._differences(client, wanted)
            by_name = {topic.name: topic for topic in wanted}
            await self._create(client, [by_name[change.topic] for change in changes if change.kind == "create"])
            for change in changes:
                topic = by_name[change.topic]
                if change.kind == "add_partitions":
                    await client.create_partitions({topic.name: NewPartitions(topic.partitions)})
                elif change.kind == "set_config":
                    resource = ConfigResource(ConfigResourceType.TOPIC, topic.name, configs=topic.config)
                    await client.alter_configs([resource])
            return changes

    async def _create(self, client: Any, topics: Sequence[Wanted]) -> None:
        if not topics:
            return
        response = await client.create_topics(
            [
                NewTopic(
                    name=topic.name,
                    num_partitions=topic.partitions,
                    replication_factor=self._replication,
                    topic_configs=topic.config if self._configurable else {},
                )
                for topic in topics
            ],
            timeout_ms=10_000,
        )
        for name, code, *rest in response.topic_errors:
            error = for_code(code)
            if code != 0 and error is not TopicAlreadyExistsError:
                raise Unavailable(f"topic {name} was not created: {error.__name__} {rest[0] if rest else ''}")

    async def _differences(self, client: Any, wanted: Sequence[Wanted]) -> list[Change]:
        existing = set(await client.list_topics())
        present = [topic for topic in wanted if topic.name in existing]
        changes = [
            Change(topic.name, "create", f"{topic.partitions} partitions")
            for topic in wanted
            if topic.name not in existing
        ]
        if present:
            described = await client.describe_topics([topic.name for topic in present])
            counts = {item["topic"]: len(item["partitions"]) for item in described}
            configs = await self._configs(client, present) if self._configurable else {}
            for topic in present:
                changes.extend(_compare(topic, counts.get(topic.name, 0), configs.get(topic.name)))
        return changes

    async def _configs(self, client: Any, topics: Sequence[Wanted]) -> dict[str, dict[str, str]]:
        resources = [ConfigResource(ConfigResourceType.TOPIC, topic.name) for topic in topics]
        configs: dict[str, dict[str, str]] = {}
        for response in await client.describe_configs(resources):
            for _, _, _, name, entries in response.resources:
                configs[name] = {entry[0]: entry[1] for entry in entries}
        return configs


def _compare(topic: Wanted, partitions: int, config: dict[str, str] | None) -> list[Change]:
    changes: list[Change] = []
    if partitions < topic.partitions:
        if topic.name.endswith(".dlq"):
            changes.append(Change(topic.name, "add_partitions", f"{partitions} -> {topic.partitions}"))
        else:
            # More partitions send a key elsewhere: two workers would hold one run.
            changes.append(Change(topic.name, "conflict", f"has {partitions} partitions, wanted {topic.partitions}"))
    if config is not None:
        wrong = {name: value for name, value in topic.config.items() if config.get(name) != value}
        if wrong:
            detail = ", ".join(f"{name}: {config.get(name)} -> {value}" for name, value in sorted(wrong.items()))
            changes.append(Change(topic.name, "set_config", detail))
    return changes


class _Client:
    def __init__(self, connection: KafkaConnection) -> None:
        self._client = AIOKafkaAdminClient(**connection.options(), request_timeout_ms=10_000)

    async def __aenter__(self) -> Any:
        try:
            async with asyncio.timeout(10.0):
                await self._client.start()
        except (KafkaError, OSError, TimeoutError) as error:
            await self.__aexit__()
            raise Unavailable("the broker cannot be reached", code="broker_unavailable") from error
        return self._client

    async def __aexit__(self, *_: object) -> None:
        try:
            async with asyncio.timeout(3.0):
                await self._client.close()
        except (KafkaError, OSError, TimeoutError):
            return
