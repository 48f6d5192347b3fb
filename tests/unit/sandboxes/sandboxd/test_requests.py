"""What the helper refuses a worker that has been taken over."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from typing import Any, cast

import pytest

from codeagent.sandboxes.protocol import (
    ExecSpec,
    IsolationLevel,
    SandboxFailure,
)
from codeagent.sandboxes.sandboxd.client import RemoteDriver, RemoteWorkspace
from codeagent.sandboxes.sandboxd.wire import MOST_BODY_BYTES, Kind, frame
from codeagent.sandboxes.streams import discard
from tests.integration.sandboxes.support import archive
from tests.unit.sandboxes.sandboxd.twin import CEILING, FILES, LIMITS, RUN, Twin, refusal, until, words


@pytest.mark.parametrize(
    "changed",
    [
        {"operation": "mount"},
        {"operation": None},
        {"operation": "shutdown"},
        {"uid": 0},
        {"workspace": "/etc"},
        {"binds": ["/"]},
        {"argv": "true"},
        {"argv": ["true", 1]},
        {"argv": ["true"] * 20_001},
        {"cwd": "x" * 4097},
        {"env": {"A": 1}},
        {"handle": True},
        {"handle": -1},
        {"handle": 1.0},
        {"limits": {}},
        {"limits": {**asdict(LIMITS), "uid": 0}},
        {"limits": {**asdict(LIMITS), "processes": True}},
        {"limits": {**asdict(LIMITS), "processes": 1.5}},
        {"limits": {**asdict(LIMITS), "memory_bytes": -1}},
        {"limits": {**asdict(LIMITS), "workspace_bytes": 0}},
        {"limits": {**asdict(LIMITS), "tmp_bytes": 0}},
        {"limits": {**asdict(LIMITS), "wall_seconds": "1"}},
        {"egress": "packages.example:443"},
        {"egress": [443]},
    ],
    ids=str,
)
async def test_a_request_that_is_not_as_it_should_be_is_refused(
    workspace: RemoteWorkspace, twin: Twin, changed: dict[str, Any]
) -> None:
    request = {**words("run", handle=workspace.handle, **RUN), **changed}
    assert await refusal(workspace, request) == "request_refused"
    assert twin.ended == 0


@pytest.mark.parametrize("name", list(asdict(LIMITS)))
async def test_no_limit_goes_beyond_what_the_operator_allows(
    remote: RemoteDriver, workspace: RemoteWorkspace, tmp_path: Path, name: str
) -> None:
    more = replace(LIMITS, **{name: getattr(LIMITS, name) + 1})
    beyond = replace(CEILING.installing, **{name: getattr(CEILING.installing, name) + 1})
    installing = remote.install(workspace, ExecSpec(("true",), limits=beyond), tmp_path / "t", discard)
    for work in (
        remote.open("x", archive(tmp_path), b"", beyond),
        installing,
        remote.run(workspace, ExecSpec(("true",), limits=more), discard),
        remote.fetch("https://git.example/r", "", tmp_path / "t", more),
    ):
        with pytest.raises(SandboxFailure) as caught:
            await work
        assert (caught.value.reason, caught.value.retryable) == ("limit_exceeded", False)


async def test_a_command_reaches_no_host_that_the_operator_does_not_allow(
    remote: RemoteDriver, workspace: RemoteWorkspace, twin: Twin
) -> None:
    allowed = ExecSpec(("true",), limits=LIMITS, egress=("packages.example:443",))
    await remote.run(workspace, allowed, discard)
    assert twin.spec == allowed
    await remote.run(workspace, replace(allowed, egress=("a.mirror.example:443",)), discard)
    refused = ("elsewhere.example:443", "packages.example:80", "mirror.example:443", "*.example:443")
    for more in (*((host,) for host in refused), (*allowed.egress, "elsewhere.example:443")):
        with pytest.raises(SandboxFailure) as caught:
            await remote.run(workspace, replace(allowed, egress=more), discard)
        assert (caught.value.reason, caught.value.retryable) == ("egress_refused", False)
    assert twin.begun == 2


async def test_another_workers_workspaces_have_no_name(
    place: Path, remote: RemoteDriver, workspace: RemoteWorkspace, tmp_path: Path
) -> None:
    other = RemoteDriver(place, IsolationLevel.NONE)
    await other.probe()
    for handle in range(1, 4):
        for request in (words("run", **RUN), words("read_file", path="README", limit_bytes=9)):
            connection = cast("Any", other)._link.session.connection
            stranger = RemoteWorkspace("ours", "ours", handle, replace_connection(workspace, connection))
            assert await refusal(stranger, {**request, "handle": handle}) == "closed"
    theirs = await other.open("ours", archive(tmp_path, {"README": b"theirs\n"}), b"", LIMITS)
    assert await other.reap(frozenset()) == 1
    assert await remote.read_file(workspace, "README", 100) == b"hello\n"
    await other.close(theirs)
    await other.shutdown()


def replace_connection(workspace: RemoteWorkspace, connection: socket.socket) -> Any:
    return replace(workspace.session, connection=connection)


@pytest.mark.parametrize("kind", ["path only", "write only", "fifo", "directory", "none"])
async def test_only_a_file_the_worker_itself_may_read_is_unpacked(
    workspace: RemoteWorkspace, tmp_path: Path, kind: str
) -> None:
    """The helper opens it again as root. A descriptor made with O_PATH takes no right to make."""
    good = archive(tmp_path, FILES)
    os.mkfifo(tmp_path / "fifo")
    flags = {
        "path only": (good, os.O_PATH),
        "write only": (good, os.O_WRONLY),
        "fifo": (tmp_path / "fifo", os.O_RDWR),
        "directory": (tmp_path, os.O_RDONLY),
    }
    handles = [os.open(*flags[kind])] if kind in flags else []
    usable = os.open(good, os.O_RDONLY)
    request = words("open", workspace="x", limits=asdict(LIMITS), image="default")
    try:
        assert await refusal(workspace, {**request, "dependencies": False}, *handles) == "request_refused"
        assert await refusal(workspace, {**request, "dependencies": True}, usable, *handles) == "request_refused"
    finally:
        for handle in (usable, *handles):
            os.close(handle)


async def test_only_a_file_the_worker_itself_may_write_is_filled(workspace: RemoteWorkspace, tmp_path: Path) -> None:
    (tmp_path / "target").touch()
    fetch = words("fetch", url="https://git.example/r", ref="", username="", token="", limits=asdict(LIMITS))
    install = words("install", handle=workspace.handle, **RUN)
    for request, flags in product((fetch, install), (os.O_RDONLY, os.O_PATH)):
        handle = os.open(tmp_path / "target", flags)
        try:
            assert await refusal(workspace, request, handle) == "request_refused"
        finally:
            os.close(handle)
    assert (tmp_path / "target").read_bytes() == b""


@pytest.mark.parametrize(
    "junk",
    [
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        struct.pack("!BII", 0, 1 << 31, 0),
        struct.pack("!BII", 0, 2, MOST_BODY_BYTES + 1) + b"{}",
        struct.pack("!BII", 0, 1 << 20, 0) + b"[" * (1 << 20),
        struct.pack("!BII", 0, 9, 0) + b'{"a":NaN}',
        struct.pack("!BII", 0, 2, 0) + b"[]",
        struct.pack("!BII", 9, 2, 0) + b"{}",
        frame(Kind.RESULT, {"operation": "reap"}),
    ],
    ids=range(9),
)
async def test_bytes_that_are_no_request_end_that_request_alone(
    remote: RemoteDriver, workspace: RemoteWorkspace, junk: bytes
) -> None:
    ours, theirs = socket.socketpair()
    socket.send_fds(workspace.session.connection, [b"r"], [theirs.fileno()])
    theirs.close()
    ours.setblocking(False)
    reader, writer = await asyncio.open_unix_connection(sock=ours)
    writer.write(junk)
    writer.write_eof()
    async with asyncio.timeout(5):
        assert await reader.read() == b""
    writer.close()
    assert await remote.read_file(workspace, "README", 100) == b"hello\n"


def open_here() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_descriptors_that_are_no_sockets_are_closed(
    remote: RemoteDriver, workspace: RemoteWorkspace, tmp_path: Path
) -> None:
    before = open_here()
    inet = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    with (tmp_path / "file").open("wb") as file, inet:
        for handles in ([], [file.fileno()], [inet.fileno()], [file.fileno()] * 50):
            socket.send_fds(workspace.session.connection, [b"r"], handles)
    assert await remote.read_file(workspace, "README", 100) == b"hello\n"
    await until(lambda: open_here() == before)


async def test_descriptors_that_come_with_nothing_are_closed(place: Path, tmp_path: Path) -> None:
    before = open_here()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection, (tmp_path / "file").open("wb") as file:
        connection.connect(str(place))
        connection.setblocking(False)
        socket.send_fds(connection, [b""], [file.fileno()] * 3)
        async with asyncio.timeout(5):
            while await asyncio.get_running_loop().sock_recv(connection, 9999):
                pass
    await until(lambda: open_here() == before)
