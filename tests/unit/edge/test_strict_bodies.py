"""What no body of a request may hold, however deep it lies."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from codeagent.edge.models import Strict


class Inner(BaseModel):
    name: str


class Body(Strict):
    texts: tuple[str, ...] = ()
    headers: dict[str, Any] = {}  # noqa: RUF012  the library copies it
    inner: Inner | None = None


@pytest.mark.parametrize(
    "said",
    [
        {"texts": ["a", "b\0"]},
        {"headers": {"a\0": 1}},
        {"headers": {"a": {"b": [{"c": "\0"}]}}},
        {"inner": {"name": "\0"}},
    ],
)
def test_no_text_in_it_holds_nul(said: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="must not hold the character NUL"):
        Body.model_validate(said)


def test_what_holds_none_is_as_it_was() -> None:
    said = {"texts": ("a",), "headers": {"a": [1, None, {"b": "c"}]}, "inner": {"name": "n"}}
    assert Body.model_validate(said).model_dump() == said
