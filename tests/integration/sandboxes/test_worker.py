"""The sandbox worker's operations on real sandboxes: what is told of each, what is kept, what is left behind."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import cast

import pytest

from codeagent import clock
from codeagent.artifacts.store import LocalArtifactStore
from codeagent.eventlog.effects import Claim
from codeagent.messages.commands import ExecuteOperation
from codeagent.messages.conversation import ToolCall
from codeagent.messages.envelope import Envelope, Message
from codeagent.messages.events import ExecEnded
from codeagent.messages.executions import ChangedFile, ExecStarted
from codeagent.messages.ids import exec_stream
from codeagent.messages.results import SandboxResult
from codeagent.messages.sandbox_limits import SandboxLimits
from codeagent.messages.values import BASE_CHECKPOINT, ArchiveSource, CallTool, CollectPatch, Operation, PrepareFiles
from codeagent.sandboxes.bwrap import BubblewrapDriver
from codeagent.sandboxes.limits import LimitPolicy
from codeagent.sandboxes.notes import Notes
from codeagent.sandboxes.workspaces import name_for
from codeagent.workers.bounds import Bounds
from codeagent.workers.effect import Work
from codeagent.workers.exec_facts import excerpt, shown_argv
from codeagent.workers.sandbox import SandboxPerformer
from tests.acceptance.checks import archive_of
from tests.integration.sandboxes.support import LIMITS

TENANT, RUN = "ten_worker", "run_worker"
BOUNDS = Bounds(
    LimitPolicy(
        SandboxLimits(workspace_bytes=LIMITS.workspace_bytes, workspace_inodes=LIMITS.workspace_inodes),
        command_seconds=int(LIMITS.wall_seconds),
    )
)
FILES = {"README": "hello\n", "src/module.py": "value = 1\n", ".gitignore": "*.log\n"}


@dataclass
class Told:
    """What came of one operation: both facts and the answer."""

    began: ExecStarted
    ended: ExecEnded
    answer: SandboxResult
    actor_id: str | None


@dataclass
class Worker:
    """One worker with a disk of its own. Artifacts are not on it."""

    performer: SandboxPerformer
    files: LocalArtifactStore
    notes: Notes
    deltas: list[dict[str, str]] = field(default_factory=list)

    async def do(
        self, operation: Operation, base: str | None, checkpoint: str = BASE_CHECKPOINT, run: str = RUN
    ) -> Told:
        effect_id = clock.new_uuid()
        command = ExecuteOperation(
            effect_id=effect_id, run_id=run, base=base, checkpoint=checkpoint, operation=operation
        )
        envelope = Envelope(effect_id, command.NAME, 1, "/test", clock.now(), TENANT, run, effect_id)
        work = Work(Message(envelope, command), Claim(effect_id, clock.new_uuid(), 1, False))
        ended = await self.performer.perform(work)
        assert ended.stream_id == exec_stream(effect_id)
        assert work.began is not None
        began, fact, answer = (cast("object", each) for each in (work.began.fact, ended.fact, ended.answer))
        assert isinstance(began, ExecStarted)
        assert isinstance(fact, ExecEnded)
        assert isinstance(answer, SandboxResult)
        return Told(began, fact, answer, ended.actor_id)

    async def shell(self, script: str, base: str, checkpoint: str = BASE_CHECKPOINT, run: str = RUN) -> Told:
        call = ToolCall(id="c", name="shell", arguments=json.dumps({"command": script}))
        return await self.do(CallTool(call=call, timeout_seconds=20), base, checkpoint, run)

    async def send(self, _key: str, value: bytes) -> None:
        self.deltas.append(json.loads(value))

    def live(self, stream: str) -> str:
        return "".join(delta["text"] for delta in self.deltas if delta["stream"] == stream)


@pytest.fixture
async def new_worker(
    driver: BubblewrapDriver, state_dir: Path, tmp_path: Path
) -> AsyncIterator[Callable[[BubblewrapDriver], Worker]]:
    """Workers that share one artifact store, each on the driver it is given."""
    store = LocalArtifactStore(tmp_path / "artifacts")
    await store.start()
    made: list[Worker] = []

    def make(own: BubblewrapDriver) -> Worker:
        notes = Notes(state_dir)
        notes.prepare()
        worker = Worker(cast("SandboxPerformer", None), store, notes)
        worker.performer = SandboxPerformer(
            own, store, worker.send, answers_topic="t", limits=BOUNDS, most_workspaces=4, notes=notes
        )
        made.append(worker)
        return worker

    yield make
    for worker in made:
        await worker.performer.close()


@pytest.fixture
def worker(new_worker: Callable[[BubblewrapDriver], Worker], driver: BubblewrapDriver) -> Worker:
    return new_worker(driver)


@pytest.fixture
async def base(worker: Worker) -> str:
    return await worker.files.put(TENANT, archive_of(FILES))


async def test_a_command_is_told_before_and_after(worker: Worker, base: str, driver: BubblewrapDriver) -> None:
    script = "API_TOKEN=hunter2; echo $API_TOKEN is set; echo 'token: hunter2' >&2; mkdir n; echo x > n/new; exit 3"
    told = await worker.shell(f"{script} # rm README; sed -i s/1/2/ src/module.py", base)
    began, ended, report = told.began, told.ended, await driver.probe()
    whole = ("/bin/bash", "-c", f"{script} # rm README; sed -i s/1/2/ src/module.py")
    assert began.argv[:2] == whole[:2]
    assert "hunter2 " not in began.argv[2]
    assert "API_TOKEN=[redacted]" in began.argv[2]
    assert began.argv_digest == "sha256:" + sha256(b"".join(word.encode() + b"\0" for word in whole)).hexdigest()
    assert (began.driver, began.driver_version, began.level) == ("bwrap", report.version, 2)
    assert began.policy_digest == report.policy_digest != ""
    assert (began.limits["wall_seconds"], began.limits["memory_bytes"]) == (20.0, LIMITS.memory_bytes)
    assert (began.input_digest, began.base, began.attempt) == (ended.input_digest, base, 1)
    assert (ended.reason, ended.exit_code, ended.signal) == ("exit", 3, None)
    assert ended.stdout is not None
    assert ended.stderr is not None
    assert (ended.stdout.excerpt, ended.stdout.seen_bytes, ended.stdout.ref) == ("hunter2 is set\n", 15, None)
    assert ended.stdout.digest == "sha256:" + sha256(b"hunter2 is set\n").hexdigest()
    assert ended.stderr.excerpt == "token: [redacted]\n"
    assert ended.changed is not None
    assert ended.changed.files == (ChangedFile(path="n/new", kind="added"),)


async def test_what_each_command_changed_is_told_by_itself(worker: Worker, base: str) -> None:
    first = await worker.shell("echo x > new; chmod +x README; sed -i s/1/2/ src/module.py; echo y > own.log", base)
    assert first.ended.changed is not None
    assert [(file.path, file.kind) for file in first.ended.changed.files] == [
        ("README", "mode"),
        ("new", "added"),
        ("src/module.py", "modified"),
    ]
    assert first.ended.changed.left_out == ("own.log",)
    assert "own.log" in first.answer.output
    second = await worker.shell("rm new; sed -i s/2/1/ src/module.py; echo z >> README", base, first.answer.checkpoint)
    assert second.ended.changed is not None
    assert [(file.path, file.kind) for file in second.ended.changed.files] == [
        ("README", "modified"),
        ("new", "deleted"),
        ("src/module.py", "modified"),
    ]
    assert "own.log" not in second.answer.output  # said once
    third = await worker.shell("rm README; for i in $(seq 150); do echo $i > f$i; done", base, second.answer.checkpoint)
    assert third.ended.changed is not None
    assert (third.ended.changed.count, len(third.ended.changed.files)) == (151, 100)


async def test_long_output_is_kept_whole_and_as_it_was_written(worker: Worker, base: str) -> None:
    program = r"seq 500000; printf '\377\033]0;title\007end' >&2"
    ended = (await worker.shell(program, base)).ended
    assert ended.stdout is not None
    assert ended.stdout.ref == ended.stdout.digest
    stored = await worker.files.read(TENANT, ended.stdout.ref)
    assert len(stored) == ended.stdout.seen_bytes == ended.stdout.kept_bytes > LIMITS.output_kept_bytes
    assert stored.startswith(b"1\n2\n")
    assert stored.endswith(b"\n500000\n")
    assert ended.stdout.excerpt.startswith("1\n2\n")
    assert ended.stdout.excerpt.endswith("\n500000\n")
    assert len(ended.stdout.excerpt) < 2_100
    assert ended.stderr is not None
    assert ended.stderr.excerpt == "�end"
    assert ended.stderr.ref is not None
    assert await worker.files.read(TENANT, ended.stderr.ref) == b"\xff\x1b]0;title\x07end"


async def test_both_streams_are_shown_live_in_whole_characters(worker: Worker, base: str) -> None:
    halves = r"printf '\342\202'; printf '\033]0;t' >&2; sleep 0.3; printf '\254 euro'; printf 'itle\007 end\377' >&2"
    told = await worker.shell(halves, base)
    assert worker.live("stdout") == "€ euro"
    assert worker.live("stderr") == " end�"
    assert told.answer.output == "exit code: 0\n€ euro\n end�"


async def test_what_a_command_used_is_counted(worker: Worker, base: str) -> None:
    burn = "python3 -c 'x = bytearray(30 << 20); n = 0\nfor i in range(3_000_000): n += i'"
    ended = (await worker.shell(burn, base)).ended
    assert ended.used is not None
    assert ended.used.user_seconds > 0.05
    assert ended.used.max_rss_bytes > 30 << 20
    assert (ended.cpu_seconds > 0.05, ended.peak_memory_bytes > 30 << 20) == (True, True)
    assert ended.used.oom_kills == 0


@pytest.fixture
async def elsewhere(driver: BubblewrapDriver, state_dir: Path) -> AsyncIterator[BubblewrapDriver]:
    """A driver of another machine: its disk has nothing of the first one but the Python runtime, built once."""
    await driver.probe()
    with tempfile.TemporaryDirectory(prefix="codeagent-elsewhere-") as disk:
        shutil.copytree(state_dir / "runtime", Path(disk, "runtime"), symlinks=True)
        other = BubblewrapDriver(Path(disk))
        yield other
        await other.shutdown()


async def test_the_worker_and_its_disk_are_gone_and_another_ends_with_the_same_patch(
    new_worker: Callable[[BubblewrapDriver], Worker],
    driver: BubblewrapDriver,
    elsewhere: BubblewrapDriver,
    base: str,
    state_dir: Path,
) -> None:
    """Nothing but artifacts and the run's facts are left of the first worker."""

    async def worked(run: str, second: BubblewrapDriver) -> tuple[str, bytes]:
        first = new_worker(driver)
        prepared = await first.do(PrepareFiles(source=ArchiveSource(digest=base)), None, run=run)
        assert prepared.answer.base == base
        one = await first.shell("echo one > one; sed -i s/1/2/ src/module.py", base, run=run)
        if second is not driver:
            await driver.shutdown()
            shutil.rmtree(state_dir / "workspaces")
        then = new_worker(second)
        two = await then.shell("cat one src/module.py; echo two >> one; rm README", base, one.answer.checkpoint, run)
        end = await then.do(CollectPatch(), base, two.answer.checkpoint, run)
        assert end.answer.patch is not None
        return two.answer.output, await then.files.read(TENANT, end.answer.patch.digest)

    stayed = await worked("run_stayed", driver)
    assert stayed[0] == "exit code: 0\none\nvalue = 2"
    assert await worked("run_moved", elsewhere) == stayed
    (state_dir / "workspaces").mkdir(exist_ok=True)


async def test_an_operator_ends_what_runs_and_the_run_goes_on_from_before(worker: Worker, base: str) -> None:
    first = await worker.shell("echo one > one", base)
    hanging = asyncio.create_task(worker.shell("echo two > two; echo started; sleep 60", base, first.answer.checkpoint))
    while "started" not in worker.live("stdout"):
        await asyncio.sleep(0.02)
    [note] = worker.notes.all()
    assert (note.run_id, note.tenant_id, note.state, note.operation) == (RUN, TENANT, "working", "shell")
    assert (note.workspace, note.worker_pid, note.driver) == (name_for(RUN), os.getpid(), "bwrap")
    worker.notes.ask_to_end(note.workspace, "operator:0")
    await worker.performer.workspaces.obey()
    told = await hanging
    assert (told.ended.reason, told.ended.outcome, told.actor_id) == ("killed", "done", "operator:0")
    assert told.ended.stdout is not None
    assert told.ended.stdout.excerpt == "started\n"
    assert "operator" in told.answer.output
    assert told.answer.checkpoint == first.answer.checkpoint
    assert list(worker.notes.all()) == []
    after = await worker.shell("ls one two", base, told.answer.checkpoint)
    assert after.answer.output.startswith("exit code: 2\none\n")


async def test_workspaces_that_nothing_runs_in_are_given_up(worker: Worker, base: str, state_dir: Path) -> None:
    first = await worker.shell("echo one > one", base)
    await worker.shell("true", base, run="run_other")
    assert await worker.performer.workspaces.close_idle(60.0) == 0
    assert len(list((state_dir / "workspaces").iterdir())) == 2
    assert await worker.performer.workspaces.close_idle(0.0) == 2
    assert list((state_dir / "workspaces").iterdir()) == []
    assert list(worker.notes.all()) == []
    again = await worker.shell("cat one", base, first.answer.checkpoint)
    assert again.answer.output == "exit code: 0\none"


async def test_a_workspace_in_which_something_failed_is_not_kept(worker: Worker, base: str, state_dir: Path) -> None:
    with pytest.raises(Exception, match="only regular files"):
        await worker.shell("git init -q nested; cd nested; git commit -q --allow-empty -m x; touch y", base)
    assert list((state_dir / "workspaces").iterdir()) == []
    assert list(worker.notes.all()) == []


def test_words_in_the_log_are_bounded_printable_and_without_secrets() -> None:
    shown = shown_argv(("curl", "-u", "bob:hunter2", "\x1b]0;x\x07" + "y" * 100_000, "z"))
    assert shown[:3] == ("curl", "-u", "bob:[redacted]")
    assert sum(map(len, shown)) < 4_200
    assert not any(char < " " and char != "\n" for char in "".join(shown))
    assert shown_argv(("sh", "-c", "curl -u bob:hunter2 https://h"))[2] == "curl -u bob:[redacted] https://h"


def test_no_secret_hides_behind_the_place_where_an_excerpt_is_cut() -> None:
    for before in range(950, 1010):
        text = excerpt(b"x" * before + b" password=correct-horse-battery " + b"y" * 5_000)
        assert "horse" not in text


async def test_calls_that_only_read_are_carried_out_at_once_in_one_workspace(
    worker: Worker, base: str, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await worker.shell("echo 'value = 3' > src/other.py", base)
    await worker.performer.workspaces.close()
    opened: list[str] = []
    driver = worker.performer._driver
    real = driver.open

    async def counted(workspace_id: str, *rest: object) -> object:
        opened.append(workspace_id)
        return await real(workspace_id, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(driver, "open", counted)
    calls = [
        ("read_file", {"path": "src/other.py"}),
        ("search", {"pattern": "value"}),
        ("read_file", {"path": "README"}),
        ("search", {"pattern": "hello"}),
    ]
    told = await asyncio.gather(
        *(
            worker.do(
                CallTool(call=ToolCall(id="c", name=name, arguments=json.dumps(arguments)), timeout_seconds=20),
                base,
                first.answer.checkpoint,
            )
            for name, arguments in calls
        )
    )
    outputs = [sorted(one.answer.output.splitlines()) for one in told]
    assert outputs[0] == ["value = 3"]
    assert outputs[1] == ["./src/module.py:1:value = 1", "./src/other.py:1:value = 3"]
    assert outputs[2:] == [["hello"], ["./README:1:hello"]]
    assert {one.answer.checkpoint for one in told} == {first.answer.checkpoint}
    assert opened == [RUN]
    after = await worker.shell("echo x >> src/other.py", base, first.answer.checkpoint)
    assert after.ended.changed is not None
    assert [file.path for file in after.ended.changed.files] == ["src/other.py"]
    assert opened == [RUN]
