"""A client has its rate in any window, not twice of it around the turn of one, and is told when to come back."""

from __future__ import annotations

from copy import copy

import pytest

from codeagent.edge.traffic import rates
from codeagent.edge.traffic.policy import Rate, RateClass, TrafficPolicy, class_of
from codeagent.edge.traffic.rates import Counter, RateLimits
from codeagent.errors import Exhausted


class Clock:
    """Time that stands still until it is moved."""

    def __init__(self) -> None:
        self.time = 1_800_000_000.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


def limits(clock: Clock, factor: int = 2) -> RateLimits:
    plenty = Rate(1_000, 60)
    policy = TrafficPolicy(
        rates={RateClass.SUBMIT: Rate(4, 60), RateClass.WRITE: plenty, RateClass.READ: plenty},
        tenant_factor=factor,
        anonymous=Rate(3, 60),
    )
    return RateLimits(policy, clock)


def at_the_beginning_of_a_window(clock: Clock, counter: Counter) -> None:
    clock.time += counter.seconds - (clock.time + counter.phase) % counter.seconds


def told(headers: list[tuple[bytes, bytes]]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in headers}


def test_what_is_left_is_told_with_every_request(clock: Clock) -> None:
    limited = limits(clock)
    headers = told(limited.admit(RateClass.SUBMIT, "key_1", "ten_1"))
    assert headers["ratelimit-policy"] == '"submit";q=4;w=60, "submit-tenant";q=8;w=60'
    assert headers["ratelimit"].startswith('"submit";r=3;t=')
    assert '"submit-tenant";r=7;t=' in headers["ratelimit"]
    assert told(limited.admit(RateClass.SUBMIT, "key_1", "ten_1"))["ratelimit"].startswith('"submit";r=2;')


def test_beyond_the_rate_nothing_is_let_through_until_the_time_that_was_told(clock: Clock) -> None:
    limited = limits(clock)
    for _ in range(4):
        limited.admit(RateClass.SUBMIT, "key_1", "ten_1")
    with pytest.raises(Exhausted) as refused:
        limited.admit(RateClass.SUBMIT, "key_1", "ten_1")
    assert (refused.value.status, refused.value.code) == (429, "quota_exceeded")
    assert refused.value.policies == ("submit",)
    assert refused.value.headers["RateLimit"] == f'"submit";r=0;t={refused.value.retry_after}'
    clock.time += refused.value.retry_after - 1
    with pytest.raises(Exhausted):
        limited.admit(RateClass.SUBMIT, "key_1", "ten_1")
    clock.time += 1
    limited.admit(RateClass.SUBMIT, "key_1", "ten_1")


def test_the_turn_of_a_window_does_not_double_the_rate(clock: Clock) -> None:
    counter = Counter("submit", Rate(100, 60), "client")
    at_the_beginning_of_a_window(clock, counter)
    clock.time += 59.0
    assert [counter.take(clock.time)[0] for _ in range(100)][-1] == 0
    clock.time += 2.0
    taken = sum(counter.take(clock.time)[0] >= 0 for _ in range(100))
    assert taken == 1  # one second of the new window has passed, and so a sixtieth of the old one has faded
    clock.time += 29.0
    assert sum(counter.take(clock.time)[0] >= 0 for _ in range(100)) == 49


@pytest.mark.parametrize("used", [1, 5, 10])
@pytest.mark.parametrize("into", [0.0, 20.5, 59.9])
def test_the_time_to_come_back_is_neither_too_early_nor_late(clock: Clock, used: int, into: float) -> None:
    counter = Counter("submit", Rate(10, 60), "client")
    at_the_beginning_of_a_window(clock, counter)
    for _ in range(used):
        counter.take(clock.time)
    clock.time += 60 + into
    while counter.take(clock.time)[0] >= 0:
        pass
    wait = counter.wait(clock.time)
    assert 1 <= wait <= 120
    if wait > 1:
        assert copy(counter).take(clock.time + wait - 1)[0] == -1
    assert counter.take(clock.time + wait)[0] >= 0


def test_a_tenant_has_its_own_rate_that_all_its_credentials_share(clock: Clock) -> None:
    limited = limits(clock)
    for number in range(8):
        limited.admit(RateClass.SUBMIT, f"key_{number}", "ten_1")
    with pytest.raises(Exhausted) as refused:
        limited.admit(RateClass.SUBMIT, "key_9", "ten_1")
    assert refused.value.policies == ("submit-tenant",)
    limited.admit(RateClass.SUBMIT, "key_9", "ten_2")


def test_what_the_tenant_refuses_does_not_count_against_the_credential(clock: Clock) -> None:
    limited = limits(clock, factor=1)
    for _ in range(4):
        limited.admit(RateClass.SUBMIT, "key_1", "ten_1")
    for _ in range(3):
        with pytest.raises(Exhausted):
            limited.admit(RateClass.SUBMIT, "key_2", "ten_1")
    clock.time += 120
    left = told(limited.admit(RateClass.SUBMIT, "key_2", "ten_1"))["ratelimit"]
    assert left.startswith('"submit";r=3;')


def test_route_classes_and_tenants_do_not_share_what_they_use(clock: Clock) -> None:
    limited = limits(clock)
    for _ in range(4):
        limited.admit(RateClass.SUBMIT, "key_1", "ten_1")
    limited.admit(RateClass.READ, "key_1", "ten_1")
    limited.admit(RateClass.SUBMIT, "key_1", "ten_2")


def test_addresses_have_a_rate_of_their_own(clock: Clock) -> None:
    limited = limits(clock)
    for _ in range(3):
        assert b"ratelimit" in dict(limited.admit_anonymous("address"))
    with pytest.raises(Exhausted) as refused:
        limited.admit_anonymous("address")
    assert refused.value.policies == ("anonymous",)
    limited.admit_anonymous("another")


def test_memory_is_bounded_and_given_back(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "MOST_COUNTERS", 10)
    limited = limits(clock)
    for number in range(50):
        limited.admit_anonymous(f"address {number}")
    anonymous = next(policy for policy in limited.policies() if policy.name == "anonymous")
    assert len(anonymous.counters) == 10
    clock.time += 180
    limited.admit_anonymous("address 49")
    limited.forget()
    assert list(anonymous.counters) == ["address 49"]


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("POST", "/v1/runs", RateClass.SUBMIT),
        ("POST", "/v1/runs/run_1/replays", RateClass.SUBMIT),
        ("POST", "/v1/runs/run_1/cancel", RateClass.WRITE),
        ("DELETE", "/v1/runs/run_1", RateClass.WRITE),
        ("GET", "/v1/runs", RateClass.READ),
        ("HEAD", "/v1/runs", RateClass.READ),
    ],
)
def test_the_class_of_a_request(method: str, path: str, expected: RateClass) -> None:
    assert class_of(method, path) is expected


@pytest.mark.parametrize(("text", "expected"), [("600/minute", Rate(600, 60)), ("5/second", Rate(5, 1))])
def test_a_rate_is_written_as_words(text: str, expected: Rate) -> None:
    assert Rate.of(text) == expected
