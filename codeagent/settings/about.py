"""What a setting's type does not say: its unit, and how a change takes effect without a restart."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict

PREFIX = "CODEAGENT_"


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return f"{PREFIX}{name.upper()}"


@dataclass(frozen=True, slots=True)
class About:
    """Put beside the type, as in `Annotated[int, About(unit="calls")]`.

    `unit` where the name does not end in one; `reloads` says how soon a change is noticed, empty: at a restart.
    """

    unit: str = ""
    reloads: str = ""


class Group(BaseModel):
    """The settings of one concern. The text below a field explains it, here and in docs/configuration.md."""

    model_config = ConfigDict(use_attribute_docstrings=True, extra="forbid", frozen=True)


def parsed(value: Any) -> Any:
    """JSON where the environment gives text. For lists and objects."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        raise ValueError("it should be JSON") from None
