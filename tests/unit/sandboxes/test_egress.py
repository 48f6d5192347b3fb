"""The proxy a fetch goes through: one host, by addresses already checked, and nothing else."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import resource
import socket
import stat
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from codeagent.addresses import Address
from codeagent.sandboxes import door, egress
from codeagent.sandboxes.door import listening
from codeagent.sandboxes.egress import Proxy, always
from codeagent.sandboxes.protocol import Verdict


@asynccontextmanager
async def far_server(answer: bytes = b"", *, echo: bool = False) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server on loopback; says `answer`, or what it hears. Collects what it heard."""
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        while piece := await reader.read(65536):
            heard.append(piece)
            if echo:
                writer.write(piece)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], heard
    finally:
        server.close()
        await server.wait_closed()


def proxy_to(port: int, budget_bytes: int = 1 << 20, *addresses: str) -> Proxy:
    found = tuple(ipaddress.ip_address(address) for address in addresses or ("127.0.0.1",))
    return Proxy({f"git.example:{port}": always(found)}, budget_bytes)


async def ask(path: Path, request: bytes, then: bytes = b"") -> tuple[bytes, bytes]:
    """The proxy's status line, and everything after the head."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(request)
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        if then:
            writer.write(then)
        writer.write_eof()
        rest = await reader.read()
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        head, rest = getattr(error, "partial", b""), b""
    finally:
        writer.close()
    return head.split(b"\r\n")[0], rest


async def test_the_named_host_is_relayed_both_ways(tmp_path: Path) -> None:
    async with far_server(echo=True) as (port, heard):
        proxy = proxy_to(port)
        async with listening(tmp_path / "s", proxy, os.getuid()):
            status, rest = await ask(
                tmp_path / "s", b"CONNECT GIT.example:%d HTTP/1.1\r\nHost: x\r\n\r\n" % port, b"x" * 300_000
            )
    assert (status, rest) == (b"HTTP/1.1 200 Connection established", b"x" * 300_000)
    assert b"".join(heard) == b"x" * 300_000
    assert proxy.refused == 0


@pytest.mark.parametrize(
    "line",
    [
        "CONNECT other.example:{port} HTTP/1.1",
        "CONNECT git.example:22 HTTP/1.1",
        "CONNECT 127.0.0.1:{port} HTTP/1.1",
        "CONNECT git.example:{port}.other HTTP/1.1",
        "CONNECT git.example HTTP/1.1",
        "GET http://git.example:{port}/ HTTP/1.1",
        "CONNECT git.example:{port}",
        "CONNECT  git.example:{port} HTTP/1.1",
        "",
    ],
)
async def test_everything_else_is_refused_without_dialling(tmp_path: Path, line: str) -> None:
    async with far_server(b"hello") as (port, heard):
        proxy = proxy_to(port)
        async with listening(tmp_path / "s", proxy, os.getuid()):
            status, rest = await ask(tmp_path / "s", line.format(port=port).encode() + b"\r\nHost: git.example\r\n\r\n")
    assert (status, rest, heard) == (b"HTTP/1.1 403 Forbidden", b"", [])
    assert proxy.refused == 1


@pytest.mark.parametrize(
    ("host", "answered"),
    [
        ("git.example", b"200 Connection established"),
        ("a.names.example", b"200 Connection established"),
        ("b.A.names.example", b"200 Connection established"),
        ("names.example", b"403 Forbidden"),
        ("badnames.example", b"403 Forbidden"),
        ("a.names.example.", b"403 Forbidden"),
        (".names.example", b"403 Forbidden"),
        ("*.names.example", b"403 Forbidden"),
        ("a_b.names.example", b"403 Forbidden"),
        ("a@names.example", b"403 Forbidden"),
        ("127.0.0.1", b"403 Forbidden"),
    ],
)
async def test_a_pattern_stands_for_the_names_below_it_and_for_nothing_else(
    tmp_path: Path, host: str, answered: bytes
) -> None:
    asked: list[tuple[str, int]] = []

    async def find(name: str, port: int) -> Sequence[Address]:
        asked.append((name, port))
        return (ipaddress.ip_address("127.0.0.1"),)

    async with far_server() as (port, _):
        listed = {f"git.example:{port}": find, f"*.names.example:{port}": find, f"*.0.0.1:{port}": find}
        proxy = Proxy(listed, 1 << 20)
        async with listening(tmp_path / "s", proxy, os.getuid()):
            status, _ = await ask(tmp_path / "s", f"CONNECT {host}:{port} HTTP/1.1\r\n\r\n".encode())
            other, _ = await ask(tmp_path / "s", f"CONNECT {host}:{port + 1} HTTP/1.1\r\n\r\n".encode())
    assert (status, other) == (b"HTTP/1.1 " + answered, b"HTTP/1.1 403 Forbidden")
    assert asked == ([(host.lower(), port)] if answered.startswith(b"200") else [])


async def test_only_checked_addresses_are_dialled_in_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dialled: list[str] = []
    connect = asyncio.open_connection

    async def watched(host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        dialled.append(host)
        if host == "127.0.0.2":
            raise ConnectionRefusedError
        return await connect(host, port)

    async with far_server(b"hello") as (port, _):
        monkeypatch.setattr(egress.asyncio, "open_connection", watched)
        async with listening(tmp_path / "s", proxy_to(port, 1 << 20, "127.0.0.2", "127.0.0.1"), os.getuid()):
            _, rest = await ask(tmp_path / "s", b"CONNECT git.example:%d HTTP/1.1\r\n\r\n" % port)
    assert (dialled, rest) == (["127.0.0.2", "127.0.0.1"], b"hello")


async def test_what_comes_back_is_limited(tmp_path: Path) -> None:
    async with far_server(b"x" * 500_000) as (port, _):
        proxy = proxy_to(port, 100_000)
        async with listening(tmp_path / "s", proxy, os.getuid()):
            _, rest = await ask(tmp_path / "s", b"CONNECT git.example:%d HTTP/1.1\r\n\r\n" % port)
    assert len(rest) <= 100_000
    assert proxy.exhausted


async def test_an_endless_request_is_dropped(tmp_path: Path) -> None:
    async with listening(tmp_path / "s", proxy_to(1), os.getuid()):
        status, rest = await ask(tmp_path / "s", b"CONNECT " + b"x" * 100_000)
    assert (status, rest) == (b"", b"")


async def test_a_silent_client_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(egress, "_REQUEST_SECONDS", 0.1)
    async with listening(tmp_path / "s", proxy_to(1), os.getuid()):
        status, rest = await asyncio.wait_for(ask(tmp_path / "s", b"CONN"), 3)
    assert (status, rest) == (b"", b"")


@pytest.mark.parametrize("half_closed", [True, False])
async def test_a_download_may_take_as_long_as_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, half_closed: bool
) -> None:
    """Whether its client has said that it says no more, or only says nothing."""
    monkeypatch.setattr(egress, "_IDLE_SECONDS", 0.5)

    async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(15):
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.1)
        await asyncio.sleep(10)

    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with listening(tmp_path / "s", proxy_to(port), os.getuid()):
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
        writer.write(b"CONNECT git.example:%d HTTP/1.1\r\n\r\n" % port)
        await reader.readuntil(b"\r\n\r\n")
        if half_closed:
            writer.write_eof()
        assert await asyncio.wait_for(reader.read(), 5) == b"x" * 15, "and is ended by its own silence"
        writer.close()
    server.close()


async def test_too_many_connections_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(egress, "_MOST_CONNECTIONS", 1)
    async with far_server() as (port, _):
        request = b"CONNECT git.example:%d HTTP/1.1\r\n\r\n" % port
        async with listening(tmp_path / "s", proxy_to(port), os.getuid()):
            reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
            writer.write(request)
            await reader.readuntil(b"\r\n\r\n")
            status, _ = await ask(tmp_path / "s", request)
            writer.close()
    assert status == b"HTTP/1.1 403 Forbidden"


async def test_of_many_silent_connections_few_are_kept_and_the_rest_are_closed_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "_MOST_LIVE", 3)
    proxy = proxy_to(1)
    async with listening(tmp_path / "s", proxy, os.getuid()):
        silent = [await asyncio.open_unix_connection(str(tmp_path / "s")) for _ in range(20)]
        for reader, _ in silent[3:]:
            assert await asyncio.wait_for(reader.read(), 2) == b""
        assert not any(reader.at_eof() for reader, _ in silent[:3])
        assert [seen.verdict for seen in proxy.connections] == [Verdict.TOO_MANY]
        silent[0][1].close()
        await silent[0][1].wait_closed()
        status = b""
        async with asyncio.timeout(2):
            while not status:  # until there is room again
                status, _ = await ask(tmp_path / "s", b"CONNECT other.example:1 HTTP/1.1\r\n\r\n")
        for _, writer in silent:
            writer.close()
    assert status == b"HTTP/1.1 403 Forbidden"


async def test_a_flood_holds_few_descriptors_at_any_moment(tmp_path: Path) -> None:
    """Those of the clients are here as well: one for each that has connected."""
    before, most = open_files(), 0
    async with listening(tmp_path / "s", proxy_to(1), os.getuid()):
        clients = []
        for _ in range(10):
            for _ in range(50):
                client = socket.socket(socket.AF_UNIX)
                client.connect(str(tmp_path / "s"))
                clients.append(client)
            while (held := open_files() - before - len(clients)) > most:
                most = held
                await asyncio.sleep(0)
            await asyncio.sleep(0.02)
        for client in clients:
            client.close()
    assert 60 <= most <= 70


async def test_without_descriptors_the_proxy_waits_for_some(tmp_path: Path) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with listening(tmp_path / "s", proxy_to(1), os.getuid()):
        with socket.socket(socket.AF_UNIX) as client:
            resource.setrlimit(resource.RLIMIT_NOFILE, (client.fileno() + 1, hard[1]))
            try:
                client.connect(str(tmp_path / "s"))
                await asyncio.sleep(0.3)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, hard)
        status, _ = await ask(tmp_path / "s", b"CONNECT other.example:1 HTTP/1.1\r\n\r\n")
    assert status == b"HTTP/1.1 403 Forbidden"


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_the_socket_is_its_owners_and_goes_with_the_body(tmp_path: Path) -> None:
    async with far_server() as (port, _):
        async with listening(tmp_path / "s", proxy_to(port), os.getuid()):
            assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o600
            reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
            writer.write(b"CONNECT git.example:%d HTTP/1.1\r\n\r\n" % port)
            await reader.readuntil(b"\r\n\r\n")
        assert await asyncio.wait_for(reader.read(), 2) == b""
        writer.close()
        assert not (tmp_path / "s").exists()
