"""Retention: what cannot be removed now holds up nothing else."""

from __future__ import annotations

import pytest

from codeagent.errors import Unavailable
from codeagent.relay.retention import MOST_AT_ONCE, RetentionLoop


class Rows:
    def __init__(self, left: int) -> None:
        self.left = left

    async def forget(self, most: int) -> int:
        found = min(most, self.left)
        self.left -= found
        return found


@pytest.mark.parametrize("trouble", [Unavailable("locked for long"), ZeroDivisionError()])
async def test_one_that_fails_is_passed_over_and_the_others_are_emptied(trouble: Exception) -> None:
    async def fails(most: int) -> int:
        raise trouble

    before, after = Rows(3), Rows(2 * MOST_AT_ONCE + 1)
    loop = RetentionLoop({"a": before.forget, "b": fails, "c": after.forget}, every_seconds=60)
    assert await loop.round() == 3 + 2 * MOST_AT_ONCE + 1
    assert before.left == after.left == 0
