"""Where a secret is: written down as such, in a file, in another variable, or in a vault."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from codeagent.errors import CodeAgentError

_MOST_BYTES = 262_144


class SecretUnavailable(CodeAgentError):
    """A secret that cannot be had now. The detail names the place, and never what is there."""

    code: ClassVar[str] = "secret_unavailable"
    status = 503


@dataclass(frozen=True, slots=True)
class Given:
    """The secret itself."""

    value: str

    def __repr__(self) -> str:
        return "Given(...)"


@dataclass(frozen=True, slots=True)
class InVariable:
    name: str


@dataclass(frozen=True, slots=True)
class InFile:
    """A file's text without the line's end, or what `pick` finds in it (`ValueError` where it finds nothing)."""

    path: Path
    pick: Callable[[str], str] | None = None


@dataclass(frozen=True, slots=True)
class InVault:
    """A field of a secret of the vault's KV engine; `path` is below the mount."""

    path: str
    field: str


Reference = Given | InVariable | InFile | InVault


def parse_reference(text: str) -> Reference:
    """`file:/path`, `env:NAME`, `vault:path#field`; any other text is the secret itself.

    Raises `ValueError` for a reference that is not whole; it never quotes the text.
    """
    scheme, separator, rest = text.partition(":")
    if not separator or scheme not in {"file", "env", "vault"}:
        return Given(text)
    if scheme == "file":
        if not rest.startswith("/"):
            raise ValueError("a file: reference needs an absolute path")
        return InFile(Path(rest))
    if scheme == "env":
        if not rest.isidentifier():
            raise ValueError("an env: reference needs the name of a variable")
        return InVariable(rest)
    path, _, field = rest.partition("#")
    if not field or not path.strip("/") or ".." in path.split("/"):
        raise ValueError("a vault: reference needs a path and a field, as in vault:codeagent/database#password")
    return InVault(path.strip("/"), field)


def read_here(reference: Given | InVariable | InFile) -> str:
    """The secret, from this machine. Raises `SecretUnavailable`."""
    match reference:
        case Given(value):
            return value
        case InVariable(name):
            value = os.environ.get(name, "")
            if not value:
                raise SecretUnavailable(f"the variable {name} is not set")
            return value
        case InFile(path, pick):
            return _read_file(path, pick)


def _read_file(path: Path, pick: Callable[[str], str] | None) -> str:
    try:
        with path.open("rb") as file:
            text = file.read(_MOST_BYTES + 1).decode()
        if len(text) > _MOST_BYTES:
            raise SecretUnavailable(f"{path} is too large for a secret")
        found = text.rstrip("\r\n") if pick is None else pick(text)
    except OSError as error:
        raise SecretUnavailable(f"{path} cannot be read ({error.strerror or type(error).__name__})") from None
    except ValueError:
        raise SecretUnavailable(f"{path} does not hold what it should") from None
    if not found:
        raise SecretUnavailable(f"{path} is empty")
    return found
