"""Values that tell their keys, opened many at once."""

from __future__ import annotations

import pytest

from codeagent.errors import Unreadable
from codeagent.subjects.key import NotOpenedBySubject
from tests.integration.subject_keys import keys_in_memory


async def test_one_value_that_cannot_be_opened_holds_up_no_others() -> None:
    keys, strangers = keys_in_memory(), keys_in_memory()
    ours, theirs = await keys.of("ten_a", "usr_a"), await strangers.of("ten_a", "usr_b")
    assert ours is not None
    assert theirs is not None
    good = {"p/1": ours.seal_named(b"one", "p/1"), "p/2": b"plain"}
    for name, bad, error in (
        ("p/3", ours.seal_named(b"moved", "p/4"), NotOpenedBySubject),
        ("p/5", theirs.seal_named(b"of a key that is not here", "p/5"), Unreadable),
    ):
        with pytest.raises(error):
            await keys.open_named({**good, name: bad})
        assert await keys.open_readable({**good, name: bad}) == {"p/1": b"one", "p/2": b"plain", name: None}
