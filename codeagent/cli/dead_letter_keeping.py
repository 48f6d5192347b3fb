"""What the relay does about dead letters: takes them from their topics, counts them, forgets them."""

from __future__ import annotations

from functools import partial

from codeagent.broker.consumer import GroupConsumer
from codeagent.broker.dead_letters import origins
from codeagent.broker.topics import load_topics
from codeagent.cli.parts import Parts
from codeagent.dead_letters.letter import KEPT_FOR
from codeagent.dead_letters.tables import forget
from codeagent.relay.dead_letters import GROUP, MOST_IN_FLIGHT, DeadLetterKeeper
from codeagent.relay.retention import Forget


def keep_dead_letters(parts: Parts) -> tuple[DeadLetterKeeper, dict[str, Forget]]:
    """Starts and stops with the process. Returns who counts them, and what forgets the old ones."""
    found = origins(load_topics(parts.settings.topics_dir))
    keeper = DeadLetterKeeper(parts.database, parts.box, found)
    consumer = GroupConsumer(
        parts.kafka,
        list(found),
        group=GROUP,
        handle=keeper,
        most_in_flight=MOST_IN_FLIGHT,
        drain_seconds=parts.settings.drain_seconds,
    )
    parts.process.start.append(consumer.start)
    parts.process.stop.append(consumer.stop)
    return keeper, {"dead_letters": partial(forget, parts.database, KEPT_FOR)}
