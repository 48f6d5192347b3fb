"""How long fetches are held back: hardly while records come, longer when none do, and as Kafka likes it on Kafka."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.consumer.fetcher import Fetcher

from codeagent.broker import pace
from codeagent.broker.pace import FetchPace


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(pace, "time", made)
    return made


def asked_for(paced: FetchPace, records: int) -> int:
    consumer = SimpleNamespace(_fetcher=SimpleNamespace(_fetch_max_wait_ms=0))
    paced.note(consumer, records)  # type: ignore[arg-type]  # all that it touches
    return int(consumer._fetcher._fetch_max_wait_ms)


def test_a_short_wait_grows_a_second_after_the_last_record_and_is_back_with_the_next(clock: Clock) -> None:
    paced = FetchPace(2)
    assert asked_for(paced, 0) == 20
    assert asked_for(paced, 1) == 2
    clock.now += 0.9
    assert asked_for(paced, 0) == 2
    clock.now += 0.2
    assert asked_for(paced, 0) == 20
    assert asked_for(paced, 3) == 2


def test_a_broker_that_answers_at_once_is_asked_as_ever(clock: Clock) -> None:
    paced = FetchPace(500)
    assert [asked_for(paced, records) for records in (0, 1, 0)] == [500, 500, 500]


async def test_the_client_still_has_the_place_that_is_written_to() -> None:
    consumer = AIOKafkaConsumer(bootstrap_servers="127.0.0.1:1")
    assert "_fetcher" in vars(consumer)
    assert "_fetch_max_wait_ms" in Fetcher.__init__.__code__.co_names
