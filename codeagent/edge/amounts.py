"""Amounts in bodies of requests: decimal numbers, or text so that nobody's floating point touches them.

The OpenAPI document says the same as the code: the library's own schema of a decimal takes spellings that it refuses.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema


@dataclass(frozen=True)
class Amount:
    """Annotates a `Decimal`: more than nothing, at most a power of ten, kept to so many decimal `places`."""

    most: int
    places: int

    @property
    def least(self) -> Decimal:
        return Decimal(1).scaleb(-self.places)

    @cached_property
    def pattern(self) -> str:
        """Of amounts in text. What begins with `0.` is at least `least`; its further places are rounded away."""
        digits, places = len(str(self.most)) - 1, self.places
        whole = f"[1-9][0-9]{{0,{digits - 1}}}(\\.[0-9]{{1,{places}}})?"
        fraction = f"0\\.0{{0,{places - 1}}}[1-9][0-9]{{0,{places - 1}}}"
        return f"^({whole}|{fraction}|{self.most})$"

    def _spelled(self, value: object) -> object:
        # The library would take any spelling of a number in text: " 1_0 ", "1e-5", digits of other scripts.
        if isinstance(value, bool) or (isinstance(value, str) and re.fullmatch(self.pattern[1:-1], value) is None):
            raise ValueError('an amount is a number, or text such as "2.50"')
        return value

    def _kept(self, value: Decimal) -> Decimal:
        exponent = value.as_tuple().exponent
        return value.quantize(self.least) if isinstance(exponent, int) and -exponent > self.places else value

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        bounded = core_schema.decimal_schema(ge=self.least, le=Decimal(self.most))
        return core_schema.no_info_after_validator_function(
            self._kept, core_schema.no_info_before_validator_function(self._spelled, bounded)
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        number = {"type": "number", "minimum": float(self.least), "maximum": self.most}
        return {"anyOf": [number, {"type": "string", "pattern": self.pattern}]}
