"""The sandbox driver on a container engine of this machine, Docker or Podman: one hardened container a command.

What it guarantees, at level KERNEL: no network but loopback, no capability, no new privileges, the same system call
filter as every other driver, a read-only image pinned by digest, a slot user of its own for every workspace, and
nothing of the host but the workspace, a memory file system of limited size. Memory, processes and processor time are
limited by the engine and once more by a control group of the worker's own around the container, which also counts what
was used. At level OWN_KERNEL the engine starts the same containers under gVisor (`runsc`). When a command is over its
container is killed and removed; what a worker that died leaves behind carries its label, and the next worker on that
state directory removes it before it does anything else.

What it does not: commands of a worker that was killed run on, within their limits, until then. Who may talk to the
engine is root on this machine, so its socket stays with the worker. The engine has to run on the same machine, as root,
and make control groups itself (`cgroupfs`), not through systemd.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from codeagent.sandboxes import cgroup_layout, container_argv, engine_seccomp, images, machine, processes
from codeagent.sandboxes.box import WORKSPACE, Box
from codeagent.sandboxes.cgroups import ControlGroups
from codeagent.sandboxes.engine import EngineCli, EngineOptions, start_failure
from codeagent.sandboxes.launcher import Launcher, Place, Program
from codeagent.sandboxes.local import SLOT_UIDS, LocalDriver
from codeagent.sandboxes.processes import Child, Pipes
from codeagent.sandboxes.protocol import Limits, Rusage, SandboxFailure, SandboxUnavailable
from codeagent.sandboxes.sources import TrustedHost
from codeagent.sandboxes.uninterrupted import in_thread

_BARRIER_SECONDS = 30.0
_AGAIN_SECONDS = 0.05
_NEVER = "0001-01-01"
_ENGINE_TASKS = 16
"""What an OCI runtime runs in the group for a moment before the command."""


class ContainerEngine:
    """See `Engine`."""

    def __init__(self, state_dir: Path, options: EngineOptions) -> None:
        self.name: str = options.name
        self.level = options.level
        self.state_dir = state_dir.absolute()
        self.tools: tuple[Path, ...] = ()
        """None: what programs there are is the image's affair."""
        self.images = options.images
        self._options = options
        self._cli = EngineCli(options)

    def missing(self) -> list[str]:
        if os.geteuid() != 0:
            return [f"level {int(self.level)} needs root, for control groups and slot users: start it as root"]
        if not self._cli.installed():
            return [f"{self.name} is missing: install it, or choose another driver"]
        try:
            answer = self._cli.ask("version")
            if answer.status != 0:
                return [f"the engine of {self.name} does not answer: {answer.complaint}"]
            if not self._options.image:
                return ["no image is set to make sandboxes of: CODEAGENT_SANDBOX_IMAGE"]
            return [*images.unusable_references(self.images), *self._missing_images(), *self._unfit()]
        except SandboxFailure as failure:
            return [str(failure)]

    def _missing_images(self) -> list[str]:
        wanted = (self._options.image, *self.images.values())
        missing = [image for image in dict.fromkeys(wanted) if not self._cli.has_image(image)]
        return [f"the image {image} is missing: load it into the engine of {self.name}" for image in missing]

    def _unfit(self) -> list[str]:
        answer = self._cli.ask("info", "--format", "{{json .}}")
        information: dict[str, Any] = json.loads(answer.output) if answer.status == 0 else {}
        host = information.get("host", {})
        if host.get("cgroupManager", information.get("CgroupDriver")) != "cgroupfs":
            return [f"{self.name} makes control groups through systemd: set its cgroup driver to cgroupfs"]
        return []

    def version(self) -> str:
        return self._cli.ask("--version").output.decode("utf-8", "replace").strip()

    def hints(self) -> list[str]:
        return [f"the image has to hold sh, env, git, python3 and pytest: {self._options.image}"]

    def prepare(self) -> Launcher:
        shared = machine.directory(self.state_dir / "engine")
        state = machine.group_name(self.state_dir)
        try:
            # This process holds the lock of the state directory: whatever carries its label has lost its worker.
            self._cli.remove_blocking(*self._cli.labelled(f"{container_argv.STATE_LABEL}={state}"))
            profile = engine_seccomp.write_profile(shared / "seccomp.json")
        except SandboxFailure as failure:
            raise SandboxUnavailable([str(failure)]) from failure
        except OSError as error:
            raise SandboxUnavailable([f"{shared} cannot be used: {error.strerror}"]) from error
        return ContainerLauncher(self._options, self._cli, state, profile)


class ContainerLauncher:
    """See `Launcher`."""

    def __init__(self, options: EngineOptions, cli: EngineCli, state: str, profile: Path) -> None:
        self._options = options
        self._cli = cli
        self._state = state
        self._profile = profile

    def room(self, limits: Limits) -> Limits:
        return replace(limits, processes=limits.processes + _ENGINE_TASKS)

    def start(self, box: Box, limits: Limits, place: Place, pipes: Pipes) -> Program:
        name = f"codeagent-{place.name}-{os.urandom(4).hex()}"
        uid = os.geteuid() if place.slot_uid is None else place.slot_uid
        words = self._words(box, limits, name, uid, cgroup_layout.group_path(place.join[0].parent))
        client = Child(processes.start((*container_argv.as_user(uid), *self._options.command, *words), pipes))
        return ContainerProgram(client, self._cli, name, self._options.reference(box.image))

    def _words(self, box: Box, limits: Limits, name: str, uid: int, parent: str) -> list[str]:
        return container_argv.run_words(
            self._options, box, limits, name=name, state=self._state, uid=uid, parent=parent, profile=self._profile
        )

    def policy_digest(self, image: str) -> str:
        words = self._words(Box(command=(), workspace=Path(WORKSPACE), image=image), Limits(), "sandbox", 0, "/")
        seen = hashlib.sha256(os.fsencode(chr(0).join(words)))
        seen.update(self._profile.read_bytes())
        return f"sha256:{seen.hexdigest()}"

    def close(self) -> None:
        """Holds nothing."""


class ContainerProgram:
    """See `Program`: a container, and the engine's program that carries its input and output."""

    def __init__(self, client: Child, cli: EngineCli, name: str, image: str) -> None:
        self._client = client
        self._cli = cli
        self._name = name
        self._image = image
        self._state: dict[str, Any] = {}
        self._killed = False
        self._gone = False

    @property
    def exit_code(self) -> int | None:
        if self._killed or self._state.get("StartedAt", _NEVER).startswith(_NEVER):
            return None
        code: int = self._state["ExitCode"]
        return code

    @property
    def oom_kills(self) -> int:
        return int(bool(self._state.get("OOMKilled")))

    @property
    def rusage(self) -> Rusage:
        return self._client.rusage

    async def ended(self) -> None:
        await self._client.ended()

    async def gone(self) -> None:
        if self._gone:
            return
        try:
            async with asyncio.timeout(_BARRIER_SECONDS):
                await self._end()
                state = await self._cli.inspect(self._name)
                await self._cli.remove(self._name)
                await self._client.gone()
        except TimeoutError:
            raise SandboxFailure("a container cannot be ended", reason="stuck") from None
        self._gone = True
        if state is None and not self._killed:
            raise await start_failure(self._cli, self._image)
        self._state = state or {}

    async def _end(self) -> None:
        """Kills the container if it has not ended by itself. It may not exist yet; its client then still makes it."""
        while not await self._ended_within(0.0 if not self._killed else _AGAIN_SECONDS):
            self._killed = True
            if (await in_thread(self._cli.ask, "kill", "--signal", "KILL", self._name)).status == 0:
                return
            if await self._cli.inspect(self._name) is not None:
                # Its processes are dead, and it waits for its client to take output that nobody reads any more.
                self._client.kill()

    async def _ended_within(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._client.ended()
                return True
        return False


class ContainerDriver(LocalDriver):
    """See `LocalDriver`."""

    reaches_out = True

    def __init__(
        self,
        state_dir: Path,
        options: EngineOptions,
        slot_uids: range = SLOT_UIDS,
        cgroup_parent: Path | None = None,
        trusted_hosts: Sequence[TrustedHost] = (),
    ) -> None:
        super().__init__(ContainerEngine(state_dir, options), slot_uids, cgroup_parent, trusted_hosts)
        self._setup = (*self._setup, options)

    def _control_groups(self, parent: Path | None) -> ControlGroups:
        return machine.control_groups(
            self._engine.state_dir, cgroup_layout.aligned(cgroup_layout.find_trees(parent=parent))
        )
