"""Environment variables with our prefix: which are settings, which are renamed ones, and which nobody reads."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import PydanticBaseSettingsSource

from codeagent.settings.about import PREFIX, variable
from codeagent.settings.problems import Problem
from codeagent.settings.profiles import PROFILES, Environment

NOT_SETTINGS = frozenset(
    {
        "CODEAGENT_URL",  # where the command line finds the edge
        "CODEAGENT_API_KEY",  # and the key it shows there
        "CODEAGENT_IMAGE_TAG",  # of the image that docker-compose.yml names
        "CODEAGENT_REPAIR_OVERLAY",  # inside sandboxes, between builtin/repair and the tests it runs
    }
)
"""Variables with our prefix that somebody else reads; so are all that begin with `CODEAGENT_TEST_`."""
RENAMED: Mapping[str, str] = {"minimum_level": "sandbox_minimum_level"}
"""Former names of settings, which still work and are told as deprecated."""
_TESTS = f"{PREFIX}TEST_"
# What Kubernetes tells every container of a namespace about a service there whose name begins with ours.
_SERVICE_LINK = re.compile(r"\w+_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)")
_SERVICE_ADDRESS = re.compile(r"(tcp|udp|sctp)://\S+")


def file_variable(name: str) -> str:
    """The variable that names a file instead of giving a secret itself."""
    return f"{variable(name)}_FILE"


def is_secret(field: FieldInfo) -> bool:
    """Whether a setting takes a secret, or a reference to one."""
    return "SecretStr" in str(field.annotation)


def wrong_variables(fields: Mapping[str, FieldInfo], environment: Mapping[str, str]) -> list[Problem]:
    """Variables that nobody reads, since a misspelt one must not pass silently, and those that contradict another."""
    known = {variable(name) for name in (*fields, *RENAMED)}
    known |= {file_variable(name) for name, field in fields.items() if is_secret(field)} | NOT_SETTINGS
    ours = [name for name in sorted(environment) if name.upper().startswith(PREFIX) and name.upper() not in known]
    strangers = [_stranger(name, known) for name in ours if not _is_of_others(name.upper(), environment[name])]
    return strangers + list(_contradictions(fields, environment))


def _is_of_others(name: str, value: str) -> bool:
    of_a_service = name.endswith("_PORT") and _SERVICE_ADDRESS.fullmatch(value)
    return bool(name.startswith(_TESTS) or _SERVICE_LINK.fullmatch(name) or of_a_service)


def _stranger(name: str, known: set[str]) -> Problem:
    # Compared without the prefix, which would make any two of them look alike.
    bare = [other.removeprefix(PREFIX) for other in sorted(known)]
    meant = difflib.get_close_matches(name.upper().removeprefix(PREFIX), bare, n=1)
    return Problem(name, "is not a setting", f"did you mean {PREFIX}{meant[0]}?" if meant else "remove it")


def _contradictions(fields: Mapping[str, FieldInfo], environment: Mapping[str, str]) -> Iterable[Problem]:
    given = _set(environment)
    for name, field in fields.items():
        if is_secret(field) and variable(name) in given and file_variable(name) in given:
            yield Problem(variable(name), f"is set, and so is {file_variable(name)}", "set one of them")
    for former, name in RENAMED.items():
        if variable(former) in given and variable(name) in given:
            yield Problem(variable(former), f"is the former name of {variable(name)}, and both are set", "remove it")


def deprecations(environment: Mapping[str, str]) -> list[Problem]:
    """Variables that still work under a name that will go."""
    given = _set(environment)
    return [
        Problem(variable(former), "is a deprecated name", f"call it {variable(name)}")
        for former, name in RENAMED.items()
        if variable(former) in given
    ]


def _set(environment: Mapping[str, str]) -> dict[str, str]:
    return {name.upper(): value for name, value in environment.items() if value}


class _Source(PydanticBaseSettingsSource):
    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return self().get(field_name), field_name, False


class FormerNames(_Source):
    """Values under the names that settings once had."""

    def __call__(self) -> dict[str, Any]:
        given = _set(os.environ)
        return {name: given[variable(former)] for former, name in RENAMED.items() if variable(former) in given}


class SecretFiles(_Source):
    """`CODEAGENT_X_FILE=/path` as the reference `file:/path`."""

    def __call__(self) -> dict[str, Any]:
        given = _set(os.environ)
        secrets = [name for name, field in self.settings_cls.model_fields.items() if is_secret(field)]
        return {name: f"file:{given[file_variable(name)]}" for name in secrets if file_variable(name) in given}


class ProfileDefaults(_Source):
    """The defaults of the environment that the stronger sources have named."""

    def __call__(self) -> dict[str, Any]:
        named = self.current_state.get("env", Environment.DEVELOPMENT)
        return dict(PROFILES[Environment(named)]) if named in set(Environment) else {}
