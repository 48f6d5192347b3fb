"""Records of dead-letter topics, as a consumer would have them."""

from __future__ import annotations

from typing import Any

from aiokafka import ConsumerRecord

from codeagent import clock
from codeagent.broker.dead_letters import Origin, failure_headers
from codeagent.broker.topics import AGENT_WORKER, RUN_COMMANDS, dead_letter_topic
from codeagent.encryption import SecretBox, new_key_line, parse_keys
from codeagent.errors import Unreadable
from codeagent.eventlog.facts import Author
from codeagent.messages.commands import CancelRun
from codeagent.messages.envelope import Envelope, Headers, to_headers
from codeagent.messages.ids import INSTALLATION, typed_id

ORIGIN = Origin(RUN_COMMANDS, AGENT_WORKER)
DLQ = dead_letter_topic(RUN_COMMANDS, AGENT_WORKER)
TENANT, RUN = "ten_a", typed_id("run", clock.new_uuid())
BOX = SecretBox(parse_keys([new_key_line("test")]))
OPERATOR = Author(INSTALLATION, "system", "operator", clock.new_uuid())
CONTENT = b"MARKED content of a tenant"


def envelope_headers(run_id: str = RUN, actor: tuple[str, str] = ("system", "system"), tenant: str = TENANT) -> Headers:
    """Of an order that was in order but for its value."""
    envelope = Envelope(
        id=clock.new_uuid(),
        name=CancelRun.NAME,
        version=1,
        source="/test",
        time=clock.now(),
        tenant_id=tenant,
        key=run_id,
        correlation_id=clock.new_uuid(),
        actor_type=actor[0],
        actor_id=actor[1],
    )
    return to_headers(envelope)


def record(topic: str, headers: Headers, value: bytes | None, **where: Any) -> ConsumerRecord:
    said: dict[str, Any] = {
        "topic": topic,
        "partition": 0,
        "offset": 0,
        "timestamp": int(clock.now().timestamp() * 1_000),
        "timestamp_type": 0,
        "key": RUN.encode(),
        "value": value,
        "checksum": None,
        "serialized_key_size": 0,
        "serialized_value_size": 0,
        "headers": tuple(headers),
    }
    return ConsumerRecord(**{**said, **where})


def dead_letter(
    headers: Headers | None = None,
    value: bytes | None = CONTENT,
    error: Exception | None = None,
    **where: Any,
) -> ConsumerRecord:
    """As `Delivery` leaves it. `where` says where it is among the dead letters."""
    own = envelope_headers() if headers is None else headers
    failed = record(RUN_COMMANDS, own, value, partition=2, offset=4711)
    reason = error or Unreadable("run.cancel version 1 does not match its schema", code="invalid_payload")
    return record(DLQ, [*own, *failure_headers(failed, AGENT_WORKER, reason, 1)], value, **where)
