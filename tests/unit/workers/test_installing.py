"""Dependencies of a run: installed where nothing is remembered, recalled where all that decides them is the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codeagent import clock
from codeagent.artifacts.store import LocalArtifactStore
from codeagent.eventlog.effects import Claim
from codeagent.messages.commands import ExecuteOperation
from codeagent.messages.envelope import Envelope, Message
from codeagent.messages.events import ExecEnded
from codeagent.messages.executions import ExecStarted
from codeagent.messages.results import SandboxResult
from codeagent.messages.sandbox_limits import SandboxLimits
from codeagent.messages.values import Dependencies, InstallDependencies, Operation
from codeagent.quotas.reservations import Worst
from codeagent.sandboxes import archives
from codeagent.sandboxes.dependencies import kept_link
from codeagent.sandboxes.limits import LimitPolicy
from codeagent.sandboxes.protocol import Connection, ExecSpec, Limits, SandboxFailure, Verdict
from codeagent.sandboxes.scripted import Scripted, ScriptedDriver
from codeagent.workers.bounds import Bounds
from codeagent.workers.deltas import unsent
from codeagent.workers.effect import Work
from codeagent.workers.installing import Registries, key_of
from codeagent.workers.sandbox import SandboxPerformer
from tests.acceptance.checks import archive_of

REGISTRY = "registry.example:443"
PIP = Dependencies(install="pip install -r requirements.txt", lock_files=("requirements.txt",))
FILES = {"requirements.txt": "six==1.16.0\n", "README": "hello\n"}


@dataclass
class Told:
    began: ExecStarted
    ended: ExecEnded
    answer: SandboxResult


@dataclass
class Worker:
    """One that remembers what its facts tell, as the log is followed. `script` is what installing does."""

    folder: Path
    script: Scripted = field(default_factory=lambda: Scripted(writes={"/dependencies/six.py": b"six"}))
    tenant: str = "ten_a"
    remembered: dict[tuple[str, str], str] = field(default_factory=dict)
    reserved: list[Worst] = field(default_factory=list)
    specs: list[ExecSpec] = field(default_factory=list)

    async def recall(self, tenant_id: str, key: str) -> str | None:
        return self.remembered.get((tenant_id, key))

    async def reserve(self, _tenant_id: str, _effect_id: object, worst: Worst) -> None:
        self.reserved.append(worst)

    def performs(self, spec: ExecSpec, _files: Mapping[str, bytes]) -> Scripted:
        self.specs.append(spec)
        return self.script

    @property
    def store(self) -> LocalArtifactStore:
        return LocalArtifactStore(self.folder / "artifacts")

    async def do(
        self, operation: Operation, files: Mapping[str, str] = FILES, limits: SandboxLimits | None = None, **more: Any
    ) -> Told:
        await self.store.start()
        base = await self.store.put(self.tenant, archive_of(files))
        performer = SandboxPerformer(
            ScriptedDriver(self.performs, images={"go": self.performs}, reaches_out=True),
            self.store,
            unsent,
            answers_topic="t",
            limits=Bounds(LimitPolicy(install_seconds=60), self.reserve),
            most_workspaces=1,
            registries=Registries((REGISTRY,), self.recall),
        )
        effect_id = clock.new_uuid()
        command = ExecuteOperation(
            effect_id=effect_id, run_id="run_1", base=base, checkpoint="", operation=operation, limits=limits, **more
        )
        envelope = Envelope(effect_id, command.NAME, 1, "/test", clock.now(), self.tenant, "run_1", effect_id)
        work = Work(Message(envelope, command), Claim(effect_id, clock.new_uuid(), 1, False))
        ended = await performer.perform(work)
        assert work.began is not None
        assert isinstance(work.began.fact, ExecStarted)
        assert isinstance(ended.fact, ExecEnded)
        assert isinstance(ended.answer, SandboxResult)
        if (installed := ended.fact.installed) is not None:
            self.remembered[self.tenant, installed.key] = installed.dependencies
        return Told(work.began.fact, ended.fact, ended.answer)

    async def install(self, dependencies: Dependencies = PIP, files: Mapping[str, str] = FILES, **more: Any) -> Told:
        return await self.do(InstallDependencies(dependencies=dependencies), files, **more)


@pytest.fixture
def worker(tmp_path: Path) -> Worker:
    return Worker(tmp_path)


async def test_the_command_runs_once_and_what_it_brought_is_then_recalled(worker: Worker) -> None:
    first, second = await worker.install(), await worker.install()
    assert [spec.argv for spec in worker.specs] == [("/bin/bash", "-c", PIP.install)]
    assert (first.ended.installed, second.ended.installed) != (None, None)
    assert first.ended.installed is not None
    assert second.ended.installed == first.ended.installed.model_copy(update={"recalled": True})
    assert first.answer.dependencies == second.answer.dependencies == first.ended.installed.dependencies
    archive = await worker.store.path("ten_a", str(first.answer.dependencies))
    [entry] = archives.entries(archive, Limits(), kept_link)
    assert entry.path == "six.py"


async def test_both_are_told_as_what_they_were(worker: Worker) -> None:
    first, second = await worker.install(), await worker.install()
    assert (first.began.operation, first.began.argv) == ("install", ("/bin/bash", "-c", PIP.install))
    assert first.began.egress == (REGISTRY,)
    assert (first.ended.reason, first.ended.exit_code) == ("ok", 0)
    assert first.answer.used is not None
    assert (second.began.argv, second.began.egress, second.ended.exit_code) == ((), None, None)
    assert second.answer.used is None
    assert first.ended.input_digest == second.ended.input_digest


@pytest.mark.parametrize(
    ("dependencies", "files"),
    [
        (PIP, {**FILES, "requirements.txt": "six==1.17.0\n"}),
        (PIP.model_copy(update={"install": "pip install -U -r requirements.txt"}), FILES),
        (PIP.model_copy(update={"lock_files": ("requirements.txt", "README")}), FILES),
    ],
    ids=["a lock file", "the command", "which lock files"],
)
async def test_what_decides_it_has_changed_so_it_is_installed_again(
    worker: Worker, dependencies: Dependencies, files: Mapping[str, str]
) -> None:
    await worker.install()
    assert (await worker.install(dependencies, files)).ended.installed is not None
    assert len(worker.specs) == 2


async def test_another_image_has_another_installation(worker: Worker) -> None:
    plain, go = await worker.install(), await worker.install(image="go")
    assert (len(worker.specs), go.began.image) == (2, "go")
    assert go.ended.input_digest != plain.ended.input_digest


async def test_other_files_and_the_order_of_lock_files_decide_nothing(worker: Worker) -> None:
    both = PIP.model_copy(update={"lock_files": ("requirements.txt", "README")})
    turned = PIP.model_copy(update={"lock_files": ("README", "requirements.txt")})
    await worker.install(both)
    await worker.install(turned, {**FILES, "src/module.py": "x = 1\n"})
    assert len(worker.specs) == 1


async def test_what_one_tenant_has_installed_is_never_given_to_another(worker: Worker) -> None:
    mine = await worker.install()
    worker.tenant = "ten_b"
    theirs = await worker.install()
    assert len(worker.specs) == 2
    assert mine.ended.input_digest != theirs.ended.input_digest


async def test_what_is_remembered_and_gone_is_installed_again(worker: Worker) -> None:
    told = await worker.install()
    (await worker.store.path("ten_a", str(told.answer.dependencies))).unlink()
    again = await worker.install()
    assert again.ended.installed is not None
    assert not again.ended.installed.recalled
    assert await worker.store.exists("ten_a", again.ended.installed.dependencies)


async def test_a_command_that_fails_is_an_outcome_in_its_own_words_and_nothing_is_remembered(worker: Worker) -> None:
    worker.script = Scripted(exit_code=1, stdout=b"Collecting nonsuch\n", stderr=b"ERROR: No matching distribution\n")
    told = await worker.install()
    assert (told.ended.reason, told.ended.exit_code, told.ended.installed) == ("exit", 1, None)
    assert told.answer.dependencies is None
    assert told.answer.output == "Collecting nonsuch\nERROR: No matching distribution"
    assert told.ended.stderr is not None
    assert told.ended.stderr.excerpt == "ERROR: No matching distribution\n"
    assert not worker.remembered


async def refused(worker: Worker, **more: Any) -> SandboxFailure:
    with pytest.raises(SandboxFailure) as caught:
        await worker.install(**more)
    return caught.value


async def test_a_registry_that_is_out_of_reach_is_tried_again_and_named(worker: Worker) -> None:
    lost = Connection("registry.example", 443, Verdict.UNREACHABLE, 0, 0)
    worker.script = Scripted(exit_code=1, stderr=b"connection failed\n", connections=(lost,))
    failure = await refused(worker)
    assert (failure.reason, failure.retryable) == ("registry_unreachable", True)
    assert failure.detail == "registries could not be reached: registry.example:443\nconnection failed"


@pytest.mark.parametrize("name", ["nonsuch.txt", "src"])
async def test_a_lock_file_that_is_none_is_named_and_not_tried_again(worker: Worker, name: str) -> None:
    files = {**FILES, "src/module.py": ""}
    failure = await refused(worker, dependencies=PIP.model_copy(update={"lock_files": (name,)}), files=files)
    assert (failure.reason, failure.retryable) == ("lock_file_unusable", False)
    assert name in failure.detail
    assert not worker.specs


async def test_it_has_a_time_limit_of_its_own_and_room_in_memory_for_what_it_installs(worker: Worker) -> None:
    limits = SandboxLimits(memory_bytes=1 << 28, dependencies_bytes=1 << 27)
    await worker.install(limits=limits)
    [spec], [worst] = worker.specs, worker.reserved
    assert (spec.limits.wall_seconds, spec.limits.dependencies_bytes) == (60.0, 1 << 27)
    assert spec.limits.memory_bytes == worst.memory_bytes == (1 << 28) + (1 << 27)
    await worker.install(limits=limits)
    assert len(worker.reserved) == 1, "what is recalled uses nothing"


NAMES = st.text("ab/", min_size=1, max_size=4)


@given(
    st.tuples(NAMES, NAMES, NAMES, st.dictionaries(NAMES, st.binary(max_size=4), max_size=3)),
    st.tuples(NAMES, NAMES, NAMES, st.dictionaries(NAMES, st.binary(max_size=4), max_size=3)),
)
def test_keys_are_the_same_for_the_same_and_no_other(one: Any, other: Any) -> None:
    assert (key_of(*one) == key_of(*other)) is (one == other)
