"""What the helper believes of a request: nothing that is not of the right type, within bounds, and expected.

The worker may have been taken over. A request names no path outside a workspace, no user and no host to trust.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from codeagent import hosts
from codeagent.sandboxes.bounds import BOUNDS
from codeagent.sandboxes.protocol import ExecSpec, GitCredential, Limits, SandboxFailure
from codeagent.sandboxes.sandboxd.wire import MOST_BODY_BYTES

_ID_CHARACTERS = 200
_PATH_CHARACTERS = 4096
_WORDS = 20_000
_WORD_CHARACTERS = 1 << 20


def refused(detail: str) -> SandboxFailure:
    return SandboxFailure(detail, reason="request_refused", retryable=False)


@dataclass(frozen=True, slots=True)
class Ceiling:
    """What the operator allows any worker: the highest limits, and the hosts that commands may reach, as in
    `ExecSpec.egress`. Commands that install may reach `registries` instead, take `install_seconds`, and have what they
    install in memory besides.

    Raises `ValueError` where what is allowed would not fit into an answer.
    """

    most: Limits = field(default_factory=Limits)
    egress: tuple[str, ...] = ()
    registries: tuple[str, ...] = ()
    install_seconds: float = 0.0

    def __post_init__(self) -> None:
        if self.most.patch_bytes > MOST_BODY_BYTES:
            raise ValueError(f"patches may have {MOST_BODY_BYTES} bytes at most")

    @property
    def installing(self) -> Limits:
        """The highest limits of commands that install."""
        memory = self.most.memory_bytes + self.most.dependencies_bytes
        seconds = max(self.most.wall_seconds, self.install_seconds)
        return replace(self.most, memory_bytes=memory, wall_seconds=seconds)


class Request:
    """The fields of one request, each taken once; `done` refuses what nobody took."""

    def __init__(self, header: Mapping[str, Any], body: bytes) -> None:
        self._left = dict(header)
        self.body = body

    def _take(self, name: str, kind: type) -> Any:
        value = self._left.pop(name, None)
        if type(value) is not kind:  # an exact type: a boolean is no number
            raise refused(f"{name} is missing or of another type")
        return value

    def text(self, name: str, most_characters: int = _PATH_CHARACTERS) -> str:
        value: str = self._take(name, str)
        if len(value) > most_characters:
            raise refused(f"{name} is too long")
        return value

    def number(self, name: str, most: int) -> int:
        value: int = self._take(name, int)
        if not 0 <= value <= most:
            raise refused(f"{name} is out of range")
        return value

    def flag(self, name: str) -> bool:
        value: bool = self._take(name, bool)
        return value

    def words(self, name: str) -> tuple[str, ...]:
        value: list[Any] = self._take(name, list)
        if len(value) > _WORDS or any(type(word) is not str or len(word) > _WORD_CHARACTERS for word in value):
            raise refused(f"{name} is no list of words, or too long")
        return tuple(value)

    def workspace_id(self) -> str:
        value = self.text("workspace", _ID_CHARACTERS)
        if not value or not value.isprintable():
            raise refused("workspace is no id")
        return value

    def limits(self, most: Limits) -> Limits:
        """Every limit, none above `most`, and none so low that the kernel takes it for no limit. Raises
        `SandboxFailure` (`limit_exceeded`) for more than the operator allows."""
        given: dict[str, Any] = self._take("limits", dict)
        if given.keys() != {each.name for each in fields(Limits)}:
            raise refused("limits are not those that are known here")
        values: dict[str, Any] = {}
        for name, value in given.items():
            highest = getattr(most, name)
            if type(value) not in (int, float) or not value >= BOUNDS[name].least:
                raise refused(f"{name} is no limit")
            if isinstance(highest, int) and type(value) is not int:
                raise refused(f"{name} is no whole number")
            if value > highest:
                detail = f"{name} may be {highest} at most on this machine"
                raise SandboxFailure(detail, reason="limit_exceeded", retryable=False)
            values[name] = value
        return Limits(**values)

    def command(self, most: Limits, reachable: Sequence[str]) -> ExecSpec:
        """Raises `SandboxFailure` (`egress_refused`) for a host that is not `reachable`."""
        environment: dict[str, Any] = self._take("env", dict)
        if len(environment) > _WORDS or any(type(value) is not str for value in environment.values()):
            raise refused("env is no environment")
        argv, cwd, egress = self.words("argv"), self.text("cwd"), self.words("egress")
        limits = self.limits(most)
        if not all(any(hosts.covers(bound, host) for bound in reachable) for host in egress):
            detail = "the operator lets no command of this machine reach all of these hosts"
            raise SandboxFailure(detail, reason="egress_refused", retryable=False)
        return ExecSpec(argv, cwd, environment, self.body, limits, egress)

    def credential(self) -> GitCredential | None:
        username, token = self.text("username"), self.text("token")
        if any(not character.isprintable() for character in username + token):
            raise refused("the credential cannot be shown to a git server")
        return GitCredential(username, token) if token else None

    def done(self) -> None:
        if self._left:
            raise refused(f"{len(self._left)} fields that nobody expects")


def check_file(handles: Sequence[int], place: int, *, writable: bool) -> int:
    """The descriptor at `place`, of a regular file that the worker itself may read, or write to.

    What is opened again by the helper is opened by root. So the descriptor must carry the right already: one that was
    opened with `O_PATH` needs none, and names any file there is.
    """
    if place >= len(handles):
        raise refused("the file is missing")
    handle = handles[place]
    flags = fcntl.fcntl(handle, fcntl.F_GETFL)
    wanted = (os.O_WRONLY, os.O_RDWR) if writable else (os.O_RDONLY, os.O_RDWR)
    if flags & os.O_PATH or flags & os.O_ACCMODE not in wanted or not stat.S_ISREG(os.fstat(handle).st_mode):
        raise refused("the file is none that the worker may use so")
    return handle
