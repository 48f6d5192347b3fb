"""What the script reported. It ran among untrusted code, so every field is checked and bounded."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

_RESULT = re.compile(r"^CODEAGENT-REPAIR-RESULT (\{.*\})$", re.MULTILINE)

Text = Annotated[str, Field(max_length=4_000)]
Count = Annotated[int, Field(ge=0)]


class Reported(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Edit(Reported):
    """`old` occurs exactly once in the file when the edit's turn comes."""

    path: Annotated[str, Field(min_length=1, max_length=500)]
    old: Annotated[str, Field(min_length=1, max_length=20_000)]
    new: Annotated[str, Field(max_length=20_000)]

    @field_validator("path")
    @classmethod
    def _inside(cls, value: str) -> str:
        if value.startswith("/") or ".." in value.split("/"):
            raise ValueError("the path leads out of the repository")
        return value


class Change(Reported):
    """An edit for people to read."""

    path: Text
    line: Count
    kind: Text = ""
    before: Text = ""
    after: Text = ""


class Suspect(Reported):
    path: Text
    line: Count
    text: Text = ""


class Findings(Reported):
    """`status`: repaired, not_found, passing, unfinished, no_tests or crashed."""

    status: Text
    reason: Text = ""
    runner: Text = "pytest"
    options: tuple[Text, ...] = ()
    paths: tuple[Text, ...] = ()
    failing: tuple[Text, ...] = ()
    failing_count: Count = 0
    passing_count: Count = 0
    tried: Count = 0
    seconds: float = 0.0
    untouched: Count = 0
    """Failing tests the task did not ask for: they were left alone."""
    edits: tuple[Edit, ...] = ()
    changes: tuple[Change, ...] = ()
    alternatives: tuple[Change, ...] = ()
    suspects: tuple[Suspect, ...] = ()


def parse(text: str) -> Findings | None:
    """The last report in an output; None when there is none that can be understood."""
    for found in reversed(_RESULT.findall(text)):
        try:
            return Findings.model_validate_json(found)
        except ValidationError:
            continue
    return None
