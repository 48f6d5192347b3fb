"""What is wrong with a configuration, in words that name the variable, and never its value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar

from codeagent.errors import CodeAgentError


@dataclass(frozen=True, slots=True)
class Problem:
    """`hint` says what to do. `risk` is the name of the rule of production that is broken, if it is one."""

    variable: str
    message: str
    hint: str = ""
    risk: str = ""

    def __str__(self) -> str:
        return f"{self.variable} {self.message}{f', {self.hint}' if self.hint else ''}"

    def as_json(self) -> dict[str, str]:
        return asdict(self)


class Misconfigured(CodeAgentError):
    """The configuration cannot be used. `problems` is everything that is wrong, and the detail says it in a line."""

    code: ClassVar[str] = "misconfigured"

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__(f"the configuration is not usable: {'; '.join(map(str, problems))}")
