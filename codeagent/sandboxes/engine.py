"""Talks to a container engine, Docker or Podman, through its command line program: one argument list a request."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess  # nosec: the operator's own engine program, always with an argument list
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from codeagent.sandboxes.outcome import last_words
from codeagent.sandboxes.protocol import DEFAULT_IMAGE, IsolationLevel, SandboxFailure
from codeagent.sandboxes.uninterrupted import in_thread

_REQUEST_SECONDS = 20.0
PINNED = r"([^\s@,]+@)?sha256:[0-9a-f]{64}"
OWN_KERNEL_RUNTIME = "runsc"

EngineName = Literal["docker", "podman"]


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Which engine, and what it makes containers of.

    `image`: pinned, `NAME@sha256:...` or its own id, and never pulled; nothing runs without one. It holds `/bin/sh`,
    `/usr/bin/env`, git, Python, what the runs' own tests need, and `/tmp` and `/home/agent` with mode 1777.
    `arguments`: words before every subcommand, such as `--host unix:///run/docker.sock`. `runtime`: the OCI runtime by
    the name the engine knows it under; `runsc` makes sandboxes with a kernel of their own. `images`: further ones by
    the names that workspaces ask for; they need neither git nor Python.
    """

    name: EngineName
    image: str = ""
    arguments: tuple[str, ...] = ()
    runtime: str = ""
    program: str = ""
    images: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.image and not re.fullmatch(PINNED, self.image):
            raise ValueError("the image of sandboxes has to be pinned: NAME@sha256:... or sha256:...")

    def reference(self, image: str) -> str:
        """What the engine knows an image by."""
        return self.image if image == DEFAULT_IMAGE else self.images[image]

    @property
    def level(self) -> IsolationLevel:
        return IsolationLevel.OWN_KERNEL if self.runtime == OWN_KERNEL_RUNTIME else IsolationLevel.KERNEL

    @property
    def command(self) -> tuple[str, ...]:
        """The words every request begins with. Podman wants its runtime here, Docker behind `run`."""
        runtime = ("--runtime", self.runtime) if self.name == "podman" and self.runtime else ()
        return (self.program or self.name, *self.arguments, *runtime)


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    output: bytes
    complaint: str
    """What the engine said when it refused, fit to be shown."""


class EngineCli:
    """Requests to one engine."""

    def __init__(self, options: EngineOptions) -> None:
        self._command = options.command

    def installed(self) -> bool:
        """Blocking."""
        return shutil.which(self._command[0]) is not None

    def ask(self, *words: str) -> Answer:
        """Blocking, up to 20 seconds. Raises `SandboxFailure` (`engine_unavailable`, retryable) without an answer."""
        try:
            done = subprocess.run(
                [*self._command, *words],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_REQUEST_SECONDS,
                check=False,
                cwd="/",
            )
        except subprocess.TimeoutExpired:
            raise SandboxFailure("the container engine does not answer", reason="engine_unavailable") from None
        except OSError as error:
            why = f"the container engine cannot be asked: {error.strerror}"
            raise SandboxFailure(why, reason="engine_unavailable") from error
        return Answer(done.returncode, done.stdout, last_words(done.stderr))

    async def inspect(self, container: str) -> dict[str, Any] | None:
        """The state of a container as the engine tells it, `None` if there is none. Raises `SandboxFailure`."""
        answer = await in_thread(self.ask, "container", "inspect", container)
        if answer.status != 0:
            return None
        state: dict[str, Any] = json.loads(answer.output)[0]["State"]
        return state

    async def remove(self, *containers: str) -> None:
        """Kills and removes; what does not exist is no fault. Raises `SandboxFailure` (`stuck`) if one stays."""
        await in_thread(self.remove_blocking, *containers)

    def remove_blocking(self, *containers: str) -> None:
        """As `remove`."""
        if not containers:
            return
        answer = self.ask("rm", "--force", "--volumes", *containers)
        if answer.status != 0 and (left := [name for name in containers if self._exists(name)]):
            raise SandboxFailure(f"containers stay: {', '.join(left)}: {answer.complaint}", reason="stuck")

    def labelled(self, label: str) -> list[str]:
        """Ids of all containers with that label, stopped ones too. Blocking. Raises `SandboxFailure`."""
        answer = self.ask("ps", "--all", "--quiet", "--no-trunc", "--filter", f"label={label}")
        if answer.status != 0:
            raise SandboxFailure(f"the container engine refuses: {answer.complaint}", reason="engine_unavailable")
        return answer.output.decode().split()

    def has_image(self, image: str) -> bool:
        """Blocking. Raises `SandboxFailure` if the engine does not answer."""
        return self.ask("image", "inspect", image).status == 0

    def _exists(self, container: str) -> bool:
        return self.ask("container", "inspect", container).status == 0


async def start_failure(engine: EngineCli, image: str) -> SandboxFailure:
    """Why a container was not even made."""
    try:
        async with asyncio.timeout(_REQUEST_SECONDS):
            running = (await in_thread(engine.ask, "version")).status == 0
            there = running and await in_thread(engine.has_image, image)
    except SandboxFailure as failure:
        return failure
    if not running:
        return SandboxFailure("the container engine is gone", reason="engine_unavailable")
    if not there:
        return SandboxFailure(f"the engine lacks the image {image}", reason="image_missing", retryable=False)
    return SandboxFailure("the container engine did not make a container", reason="start_failed")
