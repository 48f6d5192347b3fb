"""The limits of a command by name, with what each may be: for whoever is told them by a person."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from codeagent.errors import InvalidInput
from codeagent.sandboxes.protocol import Limits

_BYTES = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_NUMBER = re.compile(r"(\d{1,15}(?:\.\d{1,6})?)([kmg]?)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Bound:
    """From `least` to `most`, both included."""

    least: float
    most: float
    unit: str

    def __str__(self) -> str:
        return f"{self.least:.15g} to {self.most:.15g} {self.unit}"


BOUNDS: dict[str, Bound] = {
    "wall_seconds": Bound(0.1, 86_400, "seconds"),
    "cpu_seconds": Bound(1, 86_400, "seconds"),
    "cpu_cores": Bound(0.01, 1024, "cores"),
    "memory_bytes": Bound(8 << 20, 1 << 40, "bytes"),
    "processes": Bound(1, 32_768, "processes"),
    "open_files": Bound(16, 1 << 20, "files"),
    "file_bytes": Bound(0, 1 << 40, "bytes"),
    "workspace_bytes": Bound(1 << 20, 1 << 40, "bytes"),
    "workspace_inodes": Bound(100, 10_000_000, "files"),
    "tmp_bytes": Bound(1 << 20, 1 << 40, "bytes"),
    "output_kept_bytes": Bound(0, 1 << 30, "bytes"),
    "output_hard_bytes": Bound(1, 1 << 30, "bytes"),
    "patch_bytes": Bound(1, 64 << 20, "bytes"),
    "patch_files": Bound(1, 100_000, "files"),
    "egress_bytes": Bound(0, 1 << 40, "bytes"),
    "dependencies_bytes": Bound(1 << 20, 1 << 40, "bytes"),
}


def limited(limits: Limits, given: Mapping[str, str]) -> Limits:
    """`limits` with those that are given. Sizes may end in K, M or G, which are powers of 1024.

    Raises `InvalidInput` with what is allowed: for an unknown name the names, for a value its range.
    """
    values: dict[str, Any] = {name: _value(name, text) for name, text in given.items()}
    return replace(limits, **values)


def _value(name: str, text: str) -> int | float:
    if name not in BOUNDS:
        raise InvalidInput(f"there is no limit {name!r}; limits: {', '.join(BOUNDS)}")
    bound, number = BOUNDS[name], _NUMBER.fullmatch(text)
    if number is None or (number[2] and bound.unit != "bytes"):
        raise InvalidInput(f"{name} is no number: {text!r}; allowed: {bound}")
    value = float(number[1]) * _BYTES[number[2].lower()]
    whole = name not in _FRACTIONS
    if not bound.least <= value <= bound.most or (whole and not value.is_integer()):
        raise InvalidInput(f"{name} cannot be {text}; allowed: {bound}{', in whole numbers' if whole else ''}")
    return int(value) if whole else value


_FRACTIONS = frozenset(field.name for field in fields(Limits) if isinstance(field.default, float))
