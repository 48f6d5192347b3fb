"""Runs with dependencies on sandbox workers: installed by one run, recalled by the next, carried to other machines."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from codeagent import clock
from codeagent.artifacts.store import LocalArtifactStore
from codeagent.eventlog.effects import Claim
from codeagent.messages.commands import ExecuteOperation
from codeagent.messages.conversation import ToolCall
from codeagent.messages.envelope import Envelope, Message
from codeagent.messages.events import ExecEnded
from codeagent.messages.results import SandboxResult
from codeagent.messages.values import CallTool, Dependencies, InstallDependencies, Operation
from codeagent.sandboxes.bwrap import BubblewrapDriver
from codeagent.sandboxes.notes import Notes
from codeagent.workers.effect import Work
from codeagent.workers.installing import Registries
from codeagent.workers.sandbox import SandboxPerformer
from tests.acceptance.checks import archive_of
from tests.integration.sandboxes.test_worker import BOUNDS
from tests.servers.registry import Registry

FETCH = """
import sys, urllib.request
for name in open("packages.lock"):
    data = urllib.request.urlopen(sys.argv[1] + name.strip(), timeout=5).read()
    open("/dependencies/" + name.strip(), "wb").write(data)
print("installed")
"""
FILES = {"packages.lock": "six\n", "README": "hello\n"}


@dataclass
class Worker:
    """One worker with a disk of its own. Artifacts, and what the log tells of installations, are not on it."""

    driver: BubblewrapDriver
    store: LocalArtifactStore
    registry: Registry
    remembered: dict[tuple[str, str], str]
    deltas: list[dict[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.notes = Notes(self.driver._engine.state_dir)
        self.performer = SandboxPerformer(
            self.driver,
            self.store,
            self.send,
            answers_topic="t",
            limits=BOUNDS,
            most_workspaces=4,
            notes=self.notes,
            registries=Registries((self.registry.authority,), self.recall),
        )

    async def send(self, _key: str, value: bytes) -> None:
        self.deltas.append(json.loads(value))

    async def recall(self, tenant_id: str, key: str) -> str | None:
        return self.remembered.get((tenant_id, key))

    async def do(
        self, operation: Operation, run: str, base: str, dependencies: str | None = None, tenant: str = "ten_a"
    ) -> tuple[ExecEnded, SandboxResult]:
        effect_id = clock.new_uuid()
        command = ExecuteOperation(
            effect_id=effect_id, run_id=run, base=base, checkpoint="", operation=operation, dependencies=dependencies
        )
        envelope = Envelope(effect_id, command.NAME, 1, "/test", clock.now(), tenant, run, effect_id)
        ended = await self.performer.perform(Work(Message(envelope, command), Claim(effect_id, effect_id, 1, False)))
        assert isinstance(ended.fact, ExecEnded)
        assert isinstance(ended.answer, SandboxResult)
        if (installed := ended.fact.installed) is not None:
            self.remembered[tenant, installed.key] = installed.dependencies
        return ended.fact, ended.answer

    async def install(self, run: str, files: Mapping[str, str] = FILES, tenant: str = "ten_a") -> tuple[str, ExecEnded]:
        """The digest of what was installed, and what the log tells of it."""
        base = await self.store.put(tenant, archive_of(files))
        command = f"python3 -I -c '{FETCH}' https://{self.registry.authority}/"
        asked = Dependencies(install=command, lock_files=("packages.lock",))
        fact, answer = await self.do(InstallDependencies(dependencies=asked), run, base, tenant=tenant)
        assert answer.dependencies is not None, answer.output
        return answer.dependencies, fact

    async def shell(self, script: str, run: str, dependencies: str) -> str:
        base = await self.store.put("ten_a", archive_of(FILES))
        call = ToolCall(id="c", name="shell", arguments=json.dumps({"command": script}))
        _, answer = await self.do(CallTool(call=call, timeout_seconds=20), run, base, dependencies)
        return answer.output


NewWorker = Callable[[BubblewrapDriver], Worker]


@pytest.fixture
async def driver(state_dir: Path, registry: Registry) -> AsyncIterator[BubblewrapDriver]:
    driver = BubblewrapDriver(state_dir, trusted_hosts=[registry.trusted])
    yield driver
    await driver.shutdown()


@pytest.fixture
async def new_worker(driver: BubblewrapDriver, registry: Registry, tmp_path: Path) -> AsyncIterator[NewWorker]:
    store = LocalArtifactStore(tmp_path / "artifacts")
    await store.start()
    remembered: dict[tuple[str, str], str] = {}
    made: list[Worker] = []

    def make(own: BubblewrapDriver) -> Worker:
        made.append(Worker(own, store, registry, remembered))
        made[-1].notes.prepare()
        return made[-1]

    yield make
    for worker in made:
        await worker.performer.close()


@pytest.fixture
def worker(new_worker: NewWorker, driver: BubblewrapDriver) -> Worker:
    return new_worker(driver)


async def test_the_second_run_installs_nothing_until_a_lock_file_or_the_tenant_is_another(
    worker: Worker, registry: Registry
) -> None:
    first, told = await worker.install("run_1")
    assert (registry.asked, told.exit_code) == (["/six"], 0)
    assert told.egress is not None
    assert [(seen.host, seen.verdict) for seen in told.egress] == [("registry.example", "allowed")]
    assert "".join(delta["text"] for delta in worker.deltas) == "installed\n", "and whoever watches has seen it"
    second, told = await worker.install("run_2", {**FILES, "README": "other\n"})
    assert (second, told.installed is not None and told.installed.recalled) == (first, True)
    assert registry.asked == ["/six"]
    await worker.install("run_3", {**FILES, "packages.lock": "six\nseven\n"})
    assert registry.asked == ["/six", "/six", "/seven"]
    await worker.install("run_4", tenant="ten_b")
    assert registry.asked == ["/six", "/six", "/seven", "/six"]


async def test_the_command_sees_what_it_is_remembered_by_and_nothing_else_of_the_run(worker: Worker) -> None:
    """A run cannot leave behind what later ones are given: neither files of its own decide what is kept, nor it."""
    files = {**FILES, "pip.conf": "[global]\nindex-url = https://evil.example/\n", "deps/a.lock": "a\n"}
    base = await worker.store.put("ten_a", archive_of(files))
    command = "find . -type f | sort; echo x >packages.lock; rm -rf deps; touch new; true"
    asked = Dependencies(install=command, lock_files=("packages.lock", "deps/a.lock"))
    fact, answer = await worker.do(InstallDependencies(dependencies=asked), "run_1", base)
    assert answer.output.splitlines()[:2] == ["./deps/a.lock", "./packages.lock"]
    assert answer.output.count("Read-only file system") == 3
    assert "pip.conf" not in answer.output
    assert (await worker.shell("cat packages.lock; ls", "run_1", str(answer.dependencies))).splitlines() == [
        "exit code: 0",
        "six",
        "README",
        "packages.lock",
    ]
    assert fact.installed is not None


async def test_the_worker_and_its_disk_are_gone_and_another_goes_on_with_the_same_bytes(
    new_worker: NewWorker, driver: BubblewrapDriver, registry: Registry, state_dir: Path
) -> None:
    first = new_worker(driver)
    installed, _ = await first.install("run_1")
    script = "sha256sum /dependencies/six; echo x >/dependencies/six"
    seen = await first.shell(script, "run_1", installed)
    assert "Read-only file system" in seen
    await driver.shutdown()
    shutil.rmtree(state_dir / "workspaces")
    shutil.rmtree(state_dir / "dependencies")
    registry.body = b"another package\n"
    with tempfile.TemporaryDirectory(prefix="codeagent-elsewhere-") as disk:
        shutil.copytree(state_dir / "runtime", Path(disk, "runtime"), symlinks=True)
        other = BubblewrapDriver(Path(disk))
        assert await new_worker(other).shell(script, "run_1", installed) == seen
        await other.shutdown()
    assert registry.asked == ["/six"]
    (state_dir / "workspaces").mkdir(exist_ok=True)


async def test_an_operator_ends_an_installation(worker: Worker, registry: Registry) -> None:
    base = await worker.store.put("ten_a", archive_of(FILES))
    asked = Dependencies(install="echo started; sleep 60", lock_files=("packages.lock",))
    hanging = asyncio.create_task(worker.do(InstallDependencies(dependencies=asked), "run_1", base))
    while not worker.deltas and not hanging.done():
        await asyncio.sleep(0.02)
    [note] = worker.notes.all()
    assert note.operation == "install"
    worker.notes.ask_to_end(note.workspace, "operator:0")
    await worker.performer.workspaces.obey()
    fact, answer = await hanging
    assert (fact.reason, fact.installed, answer.dependencies) == ("killed", None, None)
    assert "operator" in answer.output
