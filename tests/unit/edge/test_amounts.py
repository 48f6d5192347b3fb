"""Amounts of money and tokens: what the document says of them and what is taken are the same."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any

import pytest
from jsonschema import Draft202012Validator
from pydantic import TypeAdapter, ValidationError

from codeagent.edge.amounts import Amount

AMOUNT = TypeAdapter(Annotated[Decimal, Amount(most=1_000, places=2)])
SCHEMA = Draft202012Validator(AMOUNT.json_schema())
TAKEN: dict[str | float, str] = {
    "0.01": "0.01",
    "2.50": "2.50",
    "999.99": "999.99",
    "1000": "1000",
    "0.019": "0.02",
    0.01: "0.01",
    7: "7",
    0.1 + 0.2: "0.30",
    1_000.0: "1000.0",
}
REFUSED = (
    *(
        "0",
        "0.00",
        "0.009",
        "-1",
        "+1",
        "1e2",
        "1_0",
        " 1",
        "1 ",
        "1.",
        ".5",
        "1.005",
        "1000.01",
        "1001",
        "٣",
        "NaN",
        "",
    ),
    *(0, -1, 0.009, 1_000.01, 1e300, True, None, [], {}),
)


@pytest.mark.parametrize(("given", "kept"), TAKEN.items())
def test_an_amount_is_kept_to_its_places(given: str | float, kept: str) -> None:
    assert str(AMOUNT.validate_python(given)) == kept
    assert SCHEMA.is_valid(given)


@pytest.mark.parametrize("given", REFUSED, ids=repr)
def test_what_the_document_forbids_is_refused(given: Any) -> None:
    with pytest.raises(ValidationError):
        AMOUNT.validate_python(given)
    assert not SCHEMA.is_valid(given)
