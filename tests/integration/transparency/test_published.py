"""Checkpoints in a topic: what they catch that nothing in the database can, and what stands in a record."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

import pytest

from codeagent.embedded.broker import EmbeddedBroker
from codeagent.errors import Unavailable
from codeagent.messages.checkpoints import SCHEMA, TYPE
from codeagent.telemetry import metrics
from codeagent.transparency.anchoring import Anchorer
from codeagent.transparency.checkpoints import open_checkpoint
from codeagent.transparency.sealer import Sealer, SealRefused
from codeagent.transparency.topic import TopicAnchor
from tests.integration.transparency.published import Published, verify
from tests.integration.transparency.sealed import KEY, KEYS, ORIGIN, newest


def waiting() -> float:
    return metrics.AUDIT_UNANCHORED.labels("topic")._value.get()


async def test_a_record_is_the_note_itself_in_an_envelope_that_says_what_it_is(published: Published) -> None:
    signed = await newest(published.database)
    assert await published.anchorer.anchor()
    await published.relay()
    assert not await published.anchorer.anchor(), "it is there already"
    [record] = await published.records(1)
    headers = {name: value.decode() for name, value in record.headers}
    assert record.value == signed.note.encode()
    assert open_checkpoint(record.value.decode(), ORIGIN, [KEY.verifier]).size == 5
    assert re.fullmatch(SCHEMA["pattern"], record.value.decode())
    assert (record.key, headers["ce_type"], headers["ce_subject"]) == (ORIGIN.encode(), TYPE, ORIGIN)
    assert (headers["content-type"], headers["ce_tenantid"]) == ("text/plain; charset=utf-8", "installation")
    assert headers["ce_dataschema"] == SCHEMA["$id"]


async def test_a_checkpoint_waits_until_the_broker_has_it(published: Published) -> None:
    await published.anchorer.anchor()
    assert waiting() > 0
    await published.relay()
    await published.anchorer.anchor()
    assert waiting() == 0


async def test_a_log_that_was_taken_back_with_its_database_contradicts_the_topic(
    published: Published, take_back: Callable[[], Awaitable[None]]
) -> None:
    await published.anchorer.anchor()
    await published.relay()
    for words in ((), ("--anchors-from-topic",)):
        done = await verify(*words)
        assert done.exit_code == 0, done.output
    assert "5 entries, 3 checkpoints, 1 of them kept elsewhere" in done.stdout

    await take_back()
    assert (await verify()).exit_code == 0, "nothing in the database tells"
    done = await verify("--anchors-from-topic")
    assert done.exit_code == 1
    assert "FAILED log_truncated at record 0/0 of the topic: it covers 5 entries, and the log has 3" in done.stdout


async def test_such_a_log_is_not_continued_either(
    published: Published, take_back: Callable[[], Awaitable[None]]
) -> None:
    await published.anchorer.anchor()
    await published.relay()
    await take_back()
    sealer = Sealer(published.database, KEYS)  # of a relay that was started after that
    topic = TopicAnchor(published.database, published.connection)
    with pytest.raises(SealRefused, match="it had 5 entries and has 3"):
        await Anchorer(published.database, topic, KEYS, sealer.heard).anchor()
    assert metrics.AUDIT_REFUSED.labels("anchor_topic")._value.get() == 1
    with pytest.raises(SealRefused, match="it had 5 entries and has 3"):
        await sealer.seal()


async def test_without_the_topic_nothing_is_called_verified_and_nothing_anchored(
    published: Published, own_broker: EmbeddedBroker
) -> None:
    own_broker.stop()
    done = await verify("--anchors-from-topic")
    assert (done.exit_code, "the broker cannot be reached" in done.stderr) == (1, True), done.output
    with pytest.raises(Unavailable):
        await published.anchorer.anchor()
    assert waiting() > 0
