"""Reads the settings of a process, and says at once everything that is wrong with them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from codeagent.settings.about import variable
from codeagent.settings.model import Settings
from codeagent.settings.problems import Misconfigured, Problem
from codeagent.settings.reference import expectation
from codeagent.settings.variables import wrong_variables

_STAND_INS: Mapping[str, Any] = {"database_url": "", "kafka_bootstrap_servers": "nowhere:0", "sandbox_minimum_level": 2}
"""For what has no default, so that the rest can be looked at when it is missing or wrong."""


def read_settings(**given: Any) -> Settings:
    """The settings of this process: from the environment, except for those that are `given`.

    Raises `Misconfigured` with everything that is wrong.
    """
    settings, problems = inspect_settings(**given)
    if problems:
        raise Misconfigured(problems)
    return settings


def inspect_settings(**given: Any) -> tuple[Settings, list[Problem]]:
    """The settings, with stand-ins for what is wrong, and what is wrong."""
    problems = wrong_variables(Settings.model_fields, os.environ)
    try:
        return Settings(**given), problems
    except ValidationError as error:
        found = error.errors(include_input=False, include_url=False)
    problems += [_problem(item["loc"], item["msg"], item["type"]) for item in found]
    known = {name: value for name, value in given.items() if name in Settings.model_fields}
    return Settings(**{**known, **{name: _stand_in(name) for name in _broken(found)}}), problems


def _broken(found: Sequence[Any]) -> set[str]:
    return {str(item["loc"][0]) for item in found} & Settings.model_fields.keys()


def _stand_in(name: str) -> Any:
    field = Settings.model_fields[name]
    return _STAND_INS[name] if field.is_required() else field.get_default(call_default_factory=True)


def _problem(location: Sequence[int | str], message: str, kind: str) -> Problem:
    setting, *inside = (str(part) for part in location)
    name = f"{variable(setting)}{''.join(f'.{part}' for part in inside)}"
    field = Settings.model_fields.get(setting)
    if kind == "missing" and not inside:
        return Problem(name, "is not set", expectation(field) if field else "")
    said = message.removeprefix("Value error, ")
    return Problem(name, f"is wrong: {said[:1].lower()}{said[1:]}", expectation(field) if field and not inside else "")
