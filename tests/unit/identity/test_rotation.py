"""When the next signing key comes, and when an old one goes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from codeagent.identity.signing import KeyAge, Rotation, RotationPolicy, plan_rotation

POLICY = RotationPolicy()
START = datetime(2026, 1, 1, tzinfo=UTC)


def key(kid: str, active_from: datetime, algorithm: str = "ES256") -> KeyAge:
    return KeyAge(kid, algorithm, active_from)


def test_the_first_key_signs_at_once() -> None:
    assert plan_rotation([], POLICY, START) == Rotation(publish=START)


def test_the_next_key_is_published_a_day_before_it_signs() -> None:
    due = START + POLICY.every
    before = due - POLICY.lead - timedelta(seconds=1)
    assert not plan_rotation([key("a", START)], POLICY, before)
    assert plan_rotation([key("a", START)], POLICY, due - POLICY.lead) == Rotation(publish=due)
    assert not plan_rotation([key("a", START), key("b", due)], POLICY, due)


def test_after_a_long_sleep_the_next_key_is_still_published_for_a_day() -> None:
    late = START + timedelta(days=100)
    assert plan_rotation([key("a", START)], POLICY, late) == Rotation(publish=late + POLICY.lead)


def test_an_old_key_goes_once_nothing_is_left_that_it_signed() -> None:
    keys = [key("a", START), key("b", START + POLICY.every)]
    end = START + POLICY.every + POLICY.overlap
    assert not plan_rotation(keys, POLICY, end)
    assert plan_rotation(keys, POLICY, end + timedelta(seconds=1)) == Rotation(remove=("a",))


def test_another_algorithm_brings_a_key_of_its_own_and_only_one() -> None:
    policy = RotationPolicy("RS256")
    now = START + timedelta(days=3)
    assert plan_rotation([key("a", START)], policy, now) == Rotation(publish=now + policy.lead)
    assert not plan_rotation([key("a", START), key("b", now + policy.lead, "RS256")], policy, now)


@given(days=st.lists(st.floats(min_value=0, max_value=3), max_size=120))
def test_there_is_always_a_key_that_signs_and_every_token_finds_its_key(days: list[float]) -> None:
    """However irregularly somebody looks: tokens live ten minutes, and their key is there as long."""
    keys: list[KeyAge] = []
    now, signed = START, []
    for number, step in enumerate([0.0, *days]):
        now += timedelta(days=step)
        plan = plan_rotation(keys, POLICY, now)
        keys = [each for each in keys if each.kid not in plan.remove]
        if plan.publish is not None:
            keys.append(key(str(number), plan.publish))
        active = [each for each in keys if each.active_from <= now]
        assert active
        signed.append((now, active[-1].kid))
        assert all(kid in {each.kid for each in keys} for at, kid in signed if now - at <= timedelta(minutes=10))
        assert len(keys) <= 3
