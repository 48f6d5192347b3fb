"""What each setting takes, in words: for hints beside a wrong value, and for docs/configuration.md."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from codeagent.settings.about import About, Group, variable
from codeagent.settings.profiles import PROFILES, Environment
from codeagent.settings.variables import RENAMED, file_variable, is_secret

_UNITS = {"_ms": "ms", "_seconds": "s", "_hours": "h", "_bytes": "bytes", "_port": "port"}
_KINDS: Mapping[Any, str] = {
    bool: "`true` or `false`",
    int: "integer",
    float: "number",
    str: "text",
    Path: "path",
    SecretStr: "secret",
    tuple: "JSON list",
    dict: "JSON object",
}


def about(field: FieldInfo) -> About:
    """What the declaration says beside the type."""
    return next((item for item in field.metadata if isinstance(item, About)), About())


def unit(name: str, field: FieldInfo) -> str:
    """The unit of a number, from the declaration or from the end of the name; empty where there is none."""
    by_name = next((text for ending, text in _UNITS.items() if name.endswith(ending)), "")
    return about(field).unit or by_name


def kind(field: FieldInfo) -> str:
    """The type as an operator sees it."""
    annotation = field.annotation
    if get_origin(annotation) in {Union, UnionType}:
        annotation = next(part for part in get_args(annotation) if part is not NoneType)
    if get_origin(annotation) is Literal:
        return _one_of(get_args(annotation))
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return _one_of([member.value for member in annotation])
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return _KINDS[dict]
    return _KINDS[get_origin(annotation) or annotation]


def _one_of(values: Any) -> str:
    return ", ".join(f"`{value}`" for value in values)


def bounds(field: FieldInfo) -> str:
    """The limits of a number, or of the length of a text; empty where there are none."""
    limits = {
        name: getattr(item, name)
        for item in field.metadata
        for name in ("ge", "gt", "le", "lt", "min_length", "max_length")
        if getattr(item, name, None) is not None
    }
    if "max_length" in limits:
        most = f"{limits['max_length']} characters"
        return f"{limits['min_length']} to {most}" if "min_length" in limits else f"at most {most}"
    if "ge" in limits and "le" in limits:
        return f"{limits['ge']} to {limits['le']}"
    return f"more than {limits['gt']}, at most {limits['le']}" if "gt" in limits else ""


def expectation(field: FieldInfo) -> str:
    """A hint for whoever gave something else."""
    if is_secret(field):
        return f"it takes {_sentence(field)}"
    if kind(field) in {"text", "path"}:
        return f"it takes {kind(field)}: {_sentence(field)}"
    limits = bounds(field)
    between = f" from {limits}" if limits[:1].isdigit() else f" of {limits}" if limits else ""
    return f"it takes {kind(field)}{between}"


def _sentence(field: FieldInfo) -> str:
    """The first sentence of the description; a full stop inside of `code` ends none."""
    words = " ".join((field.description or "").split())
    found = re.match(r"(?:`[^`]*`|[^`.]|\.(?=\S))+", words)
    return found.group() if found else words


def markdown() -> str:
    """docs/configuration.md, whole."""
    from codeagent.settings.model import GROUPS  # noqa: PLC0415  which is made of what this module explains

    return "\n".join([*_HEAD, *(line for group in GROUPS for line in _section(group)), *_renamed(), ""])


def _section(group: type[Group]) -> Iterator[str]:
    title = " ".join((group.__doc__ or "").split()).rstrip(".")
    yield from (f"## {title}", "")
    yield "| Variable | Type | Default | Bounds | Meaning | Secret | Reloaded |"
    yield "|---|---|---|---|---|---|---|"
    for name, field in group.model_fields.items():
        yield _row(name, field)
    yield ""


def _row(name: str, field: FieldInfo) -> str:
    limits, measured = bounds(field), unit(name, field)
    cells = (
        f"`{variable(name)}`" + (f", `{file_variable(name)}`" if is_secret(field) else ""),
        kind(field),
        _default(name, field),
        " ".join(filter(None, (limits, f"({measured})" if measured else ""))) or "-",
        " ".join((field.description or "").split()),
        "yes" if is_secret(field) else "no",
        about(field).reloads or "no",
    )
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _default(name: str, field: FieldInfo) -> str:
    by_profile = [PROFILES[environment].get(name) for environment in Environment]
    if any(value is not None for value in by_profile):
        shown = ("required" if value is None else _shown(value) for value in by_profile)
        return ", ".join(f"{environment} {value}" for environment, value in zip(Environment, shown, strict=True))
    return "required" if field.is_required() else _shown(field.get_default(call_default_factory=True))


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if value is None or value in ("", (), {}):
        return "none"
    if isinstance(value, Path) and value.name == "topics":
        return "`topics` beside the program"  # an absolute path of this machine otherwise
    return f"`{value.value if isinstance(value, Enum) else value}`"


def _renamed() -> Iterator[str]:
    yield from ("## Deprecated names", "", "They still work, and `codeagent config check` warns of them.", "")
    yield from ("| Former name | Name now |", "|---|---|")
    for former, name in RENAMED.items():
        yield f"| `{variable(former)}` | `{variable(name)}` |"


_HEAD = (
    "# Configuration",
    "",
    "Made by `codeagent config reference`; do not edit. Every setting is an environment variable. An empty one counts",
    "as none, and a variable with this prefix that is no setting is refused, with the name it is closest to.",
    "`codeagent config check --role ROLE` says at once everything that is wrong, and exits 0 or 2.",
    "",
    "A **secret** takes its value, or a reference: `file:/run/secrets/x`, `env:NAME` or `vault:path#field`. Its second",
    "variable, which ends in `_FILE`, takes the path of a file. **Reloaded** says how soon a running process notices a",
    "change; `no` needs a restart. How to use all this: [operations](operations.md).",
    "",
)
