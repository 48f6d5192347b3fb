"""What the helper does for a worker, and what ends when either of them does."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from codeagent.sandboxes.protocol import (
    Connection,
    ExecRecord,
    ExecSpec,
    FileState,
    GitCredential,
    IsolationLevel,
    OutputSink,
    Patch,
    Reason,
    Rusage,
    SandboxFailure,
    SandboxUnavailable,
    Toolchain,
    Verdict,
    Workspace,
)
from codeagent.sandboxes.sandboxd import asking, client, link
from codeagent.sandboxes.sandboxd import session as session_module
from codeagent.sandboxes.sandboxd.client import RemoteDriver, RemoteWorkspace
from codeagent.sandboxes.sandboxd.requests import Ceiling
from codeagent.sandboxes.sandboxd.server import MOST_SESSIONS
from codeagent.sandboxes.sandboxd.wire import MOST_BODY_BYTES
from codeagent.sandboxes.streams import discard
from tests.integration.sandboxes.support import archive
from tests.unit.sandboxes.sandboxd.twin import CEILING, FILES, LIMITS, Twin, until


async def test_everything_a_driver_tells_arrives(remote: RemoteDriver, workspace: RemoteWorkspace, twin: Twin) -> None:
    seen = (Connection("packages.example", 443, Verdict.ALLOWED, 1, 2), Connection("", 0, Verdict.NOT_CONNECT, 0, 0))
    twin.told = ExecRecord(
        Reason.OOM, 137, 9, b"out", b"err", 3, 4, ("memory", "pids"), 1.5, 2.5, 6, "twin", IsolationLevel.KERNEL,
        "detail", Rusage(0.1, 0.2, 7), 0.3, 8, 9, seen
    )  # fmt: skip
    assert await remote.run(workspace, ExecSpec(("true",)), discard) == twin.told
    states = {"a": FileState("b" * 40, "100755", created=True), "b": FileState("", "100644")}
    twin.patch = Patch(b"diff", ("a", "b"), states, ("ignored/",))
    patch = await remote.diff(workspace, LIMITS)
    assert (patch, patch.left_out) == (twin.patch, twin.patch.left_out)


async def test_an_output_larger_than_a_frame_arrives_whole(
    remote: RemoteDriver, workspace: RemoteWorkspace, twin: Twin, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = {"stdout": os.urandom(MOST_BODY_BYTES + 5), "stderr": os.urandom(70_000)}

    async def run(_workspace: Workspace, _spec: ExecSpec, sink: OutputSink) -> ExecRecord:
        for name, output in outputs.items():
            for at in range(0, len(output) - 7, 64 << 10):  # all but what is found when the command has ended
                await sink(name, output[at : at + (64 << 10)][: len(output) - 7 - at])
        return ExecRecord(Reason.OK, 0, None, **outputs, **rest)

    seen = {"stdout_seen_bytes": len(outputs["stdout"]), "stderr_seen_bytes": 70_000, "limits_hit": ()}
    used = {"wall_seconds": 1.0, "cpu_seconds": 1.0, "peak_memory_bytes": 1}
    rest: dict[str, Any] = {**seen, **used, "driver": "twin", "level": IsolationLevel.NONE}
    monkeypatch.setattr(twin, "run", run)
    record = await remote.run(workspace, ExecSpec(("true",)), discard)
    assert {"stdout": record.stdout, "stderr": record.stderr} == outputs


async def test_the_name_of_a_workspace_is_the_one_that_the_helper_has_for_it(
    workspace: RemoteWorkspace, twin: Twin
) -> None:
    assert workspace.id == "ours"
    assert [workspace.name] == list(cast("Any", twin)._workspaces)


async def test_the_helper_proves_itself_again_when_it_is_asked(remote: RemoteDriver, twin: Twin) -> None:
    assert (await remote.probe()).policy_digest == "sha256:0"
    assert await remote.fingerprint() == "fingerprint 0"
    assert (await remote.probe(again=True)).policy_digest == "sha256:1"
    assert (await remote.probe()).policy_digest == "sha256:1"
    assert await remote.fingerprint() == "fingerprint 1"
    twin.broken = ["memory is not limited", "nor time"]
    with pytest.raises(SandboxUnavailable) as caught:
        await remote.probe(again=True)
    assert caught.value.reasons == ("memory is not limited", "nor time")


async def test_who_comes_while_nothing_is_proven_is_told_why_and_let_in_later(place: Path, twin: Twin) -> None:
    twin.broken = ["no namespaces"]
    late = RemoteDriver(place, IsolationLevel.NONE, first_seconds=0.2)
    with pytest.raises(SandboxUnavailable, match="no namespaces"):
        await late.probe()
    twin.broken = []
    await until(lambda: late.ready)
    await late.shutdown()


async def test_a_helper_of_another_version_or_driver_is_not_asked(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for only, protocol, why in ((None, 5, "version 4 of its protocol, and this worker 5"), ("runsc", 4, "not runsc")):
        monkeypatch.setattr(link, "PROTOCOL", protocol)
        other = RemoteDriver(place, IsolationLevel.NONE, only, first_seconds=0.2)
        with pytest.raises(SandboxUnavailable, match=why):
            await other.probe()
        assert not other.ready
        await other.shutdown()


@pytest.mark.parametrize("greeting", [b"{", b"[]", b'{"protocol":4}', b'{"protocol":4,"proven":[],"reaches_out":true}'])
async def test_what_greets_as_no_helper_is_left_and_tried_again(tmp_path: Path, greeting: bytes) -> None:
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.setblocking(False)
        listener.bind(str(tmp_path / "socket"))
        listener.listen()
        worker = RemoteDriver(tmp_path / "socket", IsolationLevel.NONE, first_seconds=0.2)
        probing = asyncio.ensure_future(worker.probe())
        async with asyncio.timeout(5):
            for _ in range(2):
                connection, _ = await loop.sock_accept(listener)
                connection.send(greeting)
                connection.close()
        with pytest.raises(SandboxUnavailable, match="does not greet"):
            await probing
        await worker.shutdown()


async def test_a_helper_that_hangs_is_not_awaited_for_ever(
    remote: RemoteDriver, workspace: RemoteWorkspace, twin: Twin, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(*_: object, **__: object) -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await asyncio.sleep(0.2)  # it does not even hear that nobody waits any more

    for name in ("probe", "fingerprint", "run"):
        monkeypatch.setattr(twin, name, hang)
    monkeypatch.setattr(asking, "_HANG_UP_SECONDS", 0.01)
    monkeypatch.setattr(client, "_FINGERPRINT_SECONDS", 0.05)
    monkeypatch.setattr(client, "_ANSWER_SECONDS", 0.05)
    monkeypatch.setattr(remote, "_proof_seconds", 0.05)
    assert await remote.fingerprint() == ""
    with pytest.raises(SandboxUnavailable, match="did not answer within"):
        await remote.probe(again=True)
    with pytest.raises(SandboxFailure, match="did not answer within") as caught:
        await remote.run(workspace, ExecSpec(("true",), limits=replace(LIMITS, wall_seconds=0.1)), discard)
    assert (caught.value.reason, caught.value.retryable) == ("helper_lost", True)


async def test_what_is_fetched_comes_through_the_workers_own_file(
    remote: RemoteDriver, twin: Twin, tmp_path: Path
) -> None:
    credential = GitCredential("user", "token")
    await remote.fetch("https://git.example/r", "main", tmp_path / "tree.tar.gz", LIMITS, credential)
    assert twin.credential == credential
    fetched = await remote.open("fetched", tmp_path / "tree.tar.gz", b"", LIMITS)
    assert await remote.read_file(fetched, "README", 100) == b"hello\n"
    assert {path.name for path in tmp_path.iterdir()} == {"tree.tar.gz", "socket", "fetched"}


async def test_a_command_that_installs_reaches_registries_alone_and_brings_what_it_made(
    remote: RemoteDriver, workspace: RemoteWorkspace, twin: Twin, tmp_path: Path
) -> None:
    packed = tmp_path / "packed.tar.gz"
    command = ExecSpec(("true",), limits=CEILING.installing, egress=CEILING.registries)
    assert (await remote.install(workspace, command, packed, discard)).reason is Reason.OK
    assert twin.spec == command
    toolchain = Toolchain("toolchain", packed)
    later = await remote.open("later", archive(tmp_path, FILES), b"", LIMITS, toolchain)
    assert twin.toolchain.image == "toolchain"
    assert await remote.read_file(later, "README", 100) == FILES["README"]
    for elsewhere in CEILING.egress:
        with pytest.raises(SandboxFailure) as caught:
            await remote.install(workspace, replace(command, egress=(elsewhere,)), tmp_path / "none", discard)
        assert caught.value.reason == "egress_refused"
    with pytest.raises(SandboxFailure) as caught:
        await remote.run(workspace, replace(command, limits=LIMITS), discard)
    assert caught.value.reason == "egress_refused"
    record = await remote.install(workspace, replace(command, argv=("false",)), tmp_path / "none", discard)
    assert (record.exit_code, (tmp_path / "none").exists()) == (1, False)
    assert {path.name for path in tmp_path.iterdir()} >= {"packed.tar.gz", "socket"}


async def test_a_command_ends_with_its_request(workspace: RemoteWorkspace, remote: RemoteDriver, twin: Twin) -> None:
    running = asyncio.ensure_future(remote.run(workspace, ExecSpec(("wait",), limits=LIMITS), discard))
    await until(lambda: twin.begun == 1)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert twin.ended == 1


async def test_a_workspace_that_is_there_when_its_worker_stops_waiting_is_closed(
    remote: RemoteDriver, twin: Twin, tmp_path: Path
) -> None:
    opening = asyncio.ensure_future(remote.open("ours", archive(tmp_path, FILES), b"", LIMITS))
    twin.opened = opening.cancel
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert not cast("Any", twin)._workspaces
    assert remote.ready


async def test_everything_of_a_worker_ends_with_its_session(
    workspace: RemoteWorkspace, remote: RemoteDriver, twin: Twin
) -> None:
    running = asyncio.ensure_future(remote.run(workspace, ExecSpec(("wait",), limits=LIMITS), discard))
    await until(lambda: twin.begun == 1)
    await remote.shutdown()
    with pytest.raises(SandboxFailure, match="went away"):
        await running
    await until(lambda: twin.ended == 1 and not cast("Any", twin)._workspaces)


async def test_a_workspace_that_cannot_be_closed_keeps_no_other(
    remote: RemoteDriver, twin: Twin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    async def close(workspace: Workspace) -> None:
        asked.append(workspace.name.rpartition("/")[2])
        raise OSError

    monkeypatch.setattr(twin, "close", close)
    for name in ("first", "second"):
        await remote.open(name, archive(tmp_path, FILES), b"", LIMITS)
    await remote.shutdown()
    await until(lambda: asked == ["first", "second"])


async def test_a_program_waits_for_a_worker_that_takes_its_output_slowly(
    workspace: RemoteWorkspace, remote: RemoteDriver, twin: Twin
) -> None:
    taken = asyncio.Event()

    async def sink(_stream: str, _piece: bytes) -> None:
        taken.set()
        await asyncio.Event().wait()

    running = asyncio.ensure_future(remote.run(workspace, ExecSpec(("talk",), limits=LIMITS), sink))
    await taken.wait()
    said = -1
    while said != twin.said:
        said = twin.said
        await asyncio.sleep(0.1)
    assert twin.said * (64 << 10) < 2 << 20
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_requests_and_sessions_are_bounded(
    place: Path, workspace: RemoteWorkspace, remote: RemoteDriver, twin: Twin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "MOST_REQUESTS", 1)
    running = asyncio.ensure_future(remote.run(workspace, ExecSpec(("wait",), limits=LIMITS), discard))
    await until(lambda: twin.begun == 1)
    with pytest.raises(SandboxFailure) as caught:
        await remote.read_file(workspace, "README", 100)
    assert caught.value.retryable
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    connections = []
    for _ in range(MOST_SESSIONS):
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.setblocking(False)
        connection.connect(str(place))
        connections.append(connection)
    async with asyncio.timeout(5):
        assert await asyncio.get_running_loop().sock_recv(connections[-2], 9999) != b""
        assert await asyncio.get_running_loop().sock_recv(connections[-1], 9999) == b""
    for connection in connections:
        connection.close()


async def test_more_than_a_frame_holds_is_refused_before_it_is_sent(
    workspace: RemoteWorkspace, remote: RemoteDriver
) -> None:
    with pytest.raises(SandboxFailure) as caught:
        await remote.write_file(workspace, "big", bytes(MOST_BODY_BYTES + 1))
    assert (caught.value.reason, caught.value.retryable) == ("too_large", False)


def test_what_would_not_fit_into_an_answer_cannot_be_allowed() -> None:
    with pytest.raises(ValueError, match="at most"):
        Ceiling(replace(LIMITS, patch_bytes=MOST_BODY_BYTES + 1))
