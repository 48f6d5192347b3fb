"""How the patch of a run is judged, and what came of it."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, Field

from codeagent.messages.conversation import Data
from codeagent.messages.personal import FILE_NAMES, JUDGE

USUALLY_PROTECTED = (
    *("conftest.py", "pytest.*", ".pytest.*", "tox.ini", "setup.cfg", "pyproject.toml"),
    # What Python imports in pytest's place, before it, or as a plugin of it: as source, compiled, or a directory.
    *("pytest", "_pytest", "_pytest.*", "sitecustomize", "sitecustomize.*", "usercustomize", "usercustomize.*"),
    *("*.pth", "*.dist-info", "*.egg-info", "__pycache__"),
)
"""What steers a run of Python's tests without being one."""

_NAME = r"(?!\.{1,2}(/|$))[^/\x00-\x1f\x7f]+"
_PATTERN = rf"^/?{_NAME}(/{_NAME})*/?$"


def _checked(pattern: str) -> str:
    if re.fullmatch(_PATTERN, pattern) is None:
        raise ValueError("a pattern is names and wildcards between slashes, without . and ..")
    return pattern


# In Python's dialect, which has what the library's own lacks.
PathPattern = Annotated[
    str, Field(min_length=1, max_length=200, json_schema_extra={"pattern": _PATTERN}), AfterValidator(_checked)
]
"""Files of a repository: `*` and `?` stand for parts of a name, `**` for any number of directories. Without a slash
before its end it means that name everywhere, else from the top. A directory stands for all that is in it."""


class Verification(Data):
    """A command that judges the run's patch when the agent has submitted: in a workspace of its own, made of the source
    and the patch, without the patch's changes to `protected` files. The patch passes if the command exits with 0."""

    command: Annotated[str, JUDGE] = Field(min_length=1, max_length=4_000)
    protected: Annotated[tuple[PathPattern, ...], FILE_NAMES] = Field(default=USUALLY_PROTECTED, max_length=50)
    timeout_seconds: int = Field(default=300, ge=1, le=1_800)


class PatchVerdict(StrEnum):
    """`error`: nobody can say, since the command did not come to its end."""

    PASSED = "passed"
    FAILED = "failed"
    ERROR = "error"
