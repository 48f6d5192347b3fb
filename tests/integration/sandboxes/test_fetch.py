"""Fetching repositories: from a real git server over TLS, and from nowhere else."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import tarfile
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from codeagent.addresses import Address
from codeagent.sandboxes import addresses
from codeagent.sandboxes.bwrap import BubblewrapDriver
from codeagent.sandboxes.protocol import GitCredential, SandboxFailure
from codeagent.sandboxes.runsc import RunscDriver
from codeagent.sandboxes.sources import TrustedHost
from tests.conftest import unavailable
from tests.integration.sandboxes.support import LIMITS, require_root_and_runsc
from tests.servers.git_server import GitServer, backend, git, make_certificate


@pytest.fixture(scope="session")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    root = tmp_path_factory.mktemp("git")
    work = root / "work"
    work.mkdir()
    git(work, "init", "-q")
    (work / "README").write_text("first\n")
    git(work, "add", "-A")
    git(work, "commit", "-q", "-m", "first")
    first = git(work, "rev-parse", "HEAD")
    (work / "README").write_text("second\n")
    (work / "run.sh").write_text("#!/bin/sh\n")
    (work / "run.sh").chmod(0o755)
    (work / ".gitattributes").write_text("*.txt text eol=crlf\n* filter=evil\n")
    (work / "unix.txt").write_text("a\nb\n")
    (work / "inside").symlink_to("README")
    (work / "outside").symlink_to("/etc/passwd")
    git(work, "add", "-A")
    git(work, "commit", "-q", "-m", "second")
    git(work, "tag", "-a", "v1", "-m", "v1")
    git(work, "branch", "side")
    git(root, "clone", "-q", "--bare", str(work), "repo.git")
    git(root / "repo.git", "config", "uploadpack.allowAnySHA1InWant", "true")
    (work / "large").write_bytes(os.urandom(3 << 20))
    git(work, "add", "-A")
    git(work, "commit", "-q", "-m", "large")
    git(root, "clone", "-q", "--bare", str(work), "large.git")
    return root, first


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    if shutil.which("openssl") is None:
        unavailable("openssl is not installed")
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def server(repositories: tuple[Path, str], certificate: tuple[Path, Path]) -> Iterator[GitServer]:
    if backend() is None:
        unavailable("git-http-backend is not installed")
    with GitServer(repositories[0], *certificate) as running:
        yield running


@pytest.fixture
async def fetching(state_dir: Path, server: GitServer) -> AsyncIterator[BubblewrapDriver]:
    """A driver whose operator vouches for the test server."""
    driver = BubblewrapDriver(state_dir, trusted_hosts=[TrustedHost("localhost", server.port, server.certificates)])
    yield driver
    await driver.shutdown()
    assert list((state_dir / "workspaces").iterdir()) == []


def contents(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive) as tar:
        return {
            member.name: file.read()
            if (file := tar.extractfile(member)) and member.isreg()
            else member.linkname.encode()
            for member in tar
        }


@pytest.mark.parametrize("ref", ["", "main", "side", "v1", "refs/heads/main"])
async def test_the_tree_of_a_ref_becomes_an_archive(
    fetching: BubblewrapDriver, server: GitServer, tmp_path: Path, ref: str
) -> None:
    destination = tmp_path / "tree.tar.gz"
    await fetching.fetch(server.url(), ref, destination, LIMITS)
    found = contents(destination)
    assert found["README"] == b"second\n"
    assert found["unix.txt"] == b"a\nb\n"  # as stored, whatever attributes say
    assert set(found) == {".gitattributes", "README", "inside", "run.sh", "unix.txt"}  # no .git, no link outside
    workspace = await fetching.open("fetched", destination, b"", LIMITS)
    assert (workspace.files / "run.sh").stat().st_mode & 0o777 == 0o755  # type: ignore[attr-defined]
    assert list(tmp_path.glob(".tree*")) == []


async def test_a_stronger_driver_fetches_at_its_own_level(state_dir: Path, server: GitServer, tmp_path: Path) -> None:
    """Through the same proxy, and with the kernel inside: what is fetched is as hostile as a command."""
    require_root_and_runsc()
    driver = RunscDriver(state_dir, trusted_hosts=[TrustedHost("localhost", server.port, server.certificates)])
    try:
        await driver.fetch(server.url(), "main", tmp_path / "tree.tar.gz", LIMITS)
        assert contents(tmp_path / "tree.tar.gz")["README"] == b"second\n"
        with pytest.raises(SandboxFailure) as caught:
            await driver.fetch(server.url(), "missing", tmp_path / "none.tar.gz", LIMITS)
        assert caught.value.reason == "not_found"
    finally:
        await driver.shutdown()


async def test_a_commit_can_be_named_and_the_archive_is_always_the_same(
    fetching: BubblewrapDriver, server: GitServer, repositories: tuple[Path, str], tmp_path: Path
) -> None:
    for name in ("one", "two"):
        await fetching.fetch(server.url(), repositories[1], tmp_path / name, LIMITS)
    assert contents(tmp_path / "one") == {"README": b"first\n"}
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize(("path", "ref"), [("missing.git", ""), ("repo.git", "no-such-branch")])
async def test_what_is_not_there_is_told(
    fetching: BubblewrapDriver, server: GitServer, tmp_path: Path, path: str, ref: str
) -> None:
    with pytest.raises(SandboxFailure) as caught:
        await fetching.fetch(server.url(path), ref, tmp_path / "x", LIMITS)
    assert (caught.value.reason, caught.value.retryable) == ("not_found", False)
    assert not (tmp_path / "x").exists()


CREDENTIAL = GitCredential("deploy", "glpat-not-to-be-seen")
"""What a server of these tests may ask for."""


async def test_a_private_repository_opens_to_its_credential_which_nobody_else_can_see(
    fetching: BubblewrapDriver, server: GitServer, tmp_path: Path
) -> None:
    server.password = "deploy:glpat-not-to-be-seen"
    seen: set[bytes] = set()
    watching = asyncio.create_task(watch_processes(seen))
    await fetching.fetch(server.url(), "", tmp_path / "tree", LIMITS, CREDENTIAL)
    watching.cancel()
    assert contents(tmp_path / "tree")["README"] == b"second\n"
    assert set(server.shown) == {server.password}
    assert any(b"fetch" in words for words in seen), "git was never looked at"
    assert not any(CREDENTIAL.token.encode() in words for words in seen)
    assert CREDENTIAL.token not in repr(CREDENTIAL)


async def watch_processes(seen: set[bytes]) -> None:
    """Gathers the arguments and the environment of every process that there is, again and again."""
    while True:
        for process in Path("/proc").glob("[0-9]*"):
            for name in ("cmdline", "environ"):
                with suppress(OSError):
                    seen.add((process / name).read_bytes())
        await asyncio.sleep(0)


@pytest.mark.parametrize("credential", [GitCredential("deploy", "glpat-wrong"), GitCredential("nobody", "x")])
async def test_a_credential_that_is_not_let_in_is_told_as_such(
    fetching: BubblewrapDriver, server: GitServer, tmp_path: Path, credential: GitCredential
) -> None:
    server.password = "deploy:glpat-not-to-be-seen"
    with pytest.raises(SandboxFailure) as caught:
        await fetching.fetch(server.url(), "", tmp_path / "x", LIMITS, credential)
    assert (caught.value.reason, caught.value.retryable) == ("credential_refused", False)
    assert credential.token not in caught.value.detail


async def test_a_private_repository_without_a_credential_is_as_one_that_is_not_there(
    fetching: BubblewrapDriver, server: GitServer, tmp_path: Path
) -> None:
    server.password = "deploy:glpat-not-to-be-seen"
    with pytest.raises(SandboxFailure) as caught:
        await fetching.fetch(server.url(), "", tmp_path / "x", LIMITS)
    assert caught.value.reason == "not_found"


async def test_a_credential_is_not_carried_to_where_a_redirect_leads(
    fetching: BubblewrapDriver, server: GitServer, repositories: tuple[Path, str], certificate: tuple[Path, Path],
    tmp_path: Path,
) -> None:  # fmt: skip
    with GitServer(repositories[0], *certificate) as elsewhere:
        server.redirect_to, server.password = elsewhere.url(), "deploy:glpat-not-to-be-seen"
        elsewhere.password = server.password
        with pytest.raises(SandboxFailure) as caught:
            await fetching.fetch(server.url("redirect.git"), "", tmp_path / "x", LIMITS, CREDENTIAL)
        assert caught.value.reason == "address_refused"
        assert (elsewhere.requests, elsewhere.shown) == ([], [])


async def test_a_server_that_cannot_prove_its_name_is_not_believed(
    state_dir: Path, server: GitServer, tmp_path: Path
) -> None:
    driver = BubblewrapDriver(state_dir, trusted_hosts=[TrustedHost("localhost", server.port)])
    try:
        with pytest.raises(SandboxFailure, match="certificate") as caught:
            await driver.fetch(server.url(), "", tmp_path / "x", LIMITS)
    finally:
        await driver.shutdown()
    assert caught.value.reason == "fetch_failed"


async def test_certificates_that_went_away_since_the_start_may_come_back(
    state_dir: Path, server: GitServer, tmp_path: Path
) -> None:
    driver = BubblewrapDriver(state_dir, trusted_hosts=[TrustedHost("localhost", server.port, tmp_path / "gone.pem")])
    try:
        with pytest.raises(SandboxFailure, match="certificates of the trusted host") as caught:
            await driver.fetch(server.url(), "", tmp_path / "x", LIMITS)
    finally:
        await driver.shutdown()
    assert (caught.value.reason, caught.value.retryable) == ("fetch_failed", True)


async def test_a_redirect_leads_to_no_other_place(
    fetching: BubblewrapDriver, server: GitServer, tmp_path: Path
) -> None:
    visitors = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.2)
        server.redirect_to = f"https://localhost:{listener.getsockname()[1]}/git/repo.git"
        with pytest.raises(SandboxFailure) as caught:
            await fetching.fetch(server.url("redirect.git"), "", tmp_path / "x", LIMITS)
        try:
            visitors.append(await asyncio.to_thread(listener.accept))
        except TimeoutError:
            pass
    assert (caught.value.reason, caught.value.retryable) == ("address_refused", False)
    assert visitors == []


async def test_a_repository_larger_than_allowed_is_refused(
    fetching: BubblewrapDriver, server: GitServer, tmp_path: Path
) -> None:
    limits = replace(LIMITS, workspace_bytes=1 << 20)
    with pytest.raises(SandboxFailure) as caught:
        await fetching.fetch(server.url("large.git"), "", tmp_path / "x", limits)
    assert (caught.value.reason, caught.value.retryable) == ("too_large", False)


async def test_a_server_that_never_answers_is_given_up(state_dir: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        driver = BubblewrapDriver(state_dir, trusted_hosts=[TrustedHost("localhost", port)])
        try:
            with pytest.raises(SandboxFailure, match="timeout") as caught:
                await driver.fetch(f"https://localhost:{port}/x", "", tmp_path / "x", replace(LIMITS, wall_seconds=2.0))
        finally:
            await driver.shutdown()
    assert (caught.value.reason, caught.value.retryable) == ("fetch_failed", True)


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/x.git",
        "https://10.0.0.1/x.git",
        "https://169.254.169.254/latest/meta-data",
        "https://[::1]/x.git",
        "https://[::ffff:127.0.0.1]/x.git",
        "https://localhost/x.git",
        "https://0x7f.1/x.git",
        "https://2130706433/x.git",
    ],
)
async def test_addresses_that_are_not_public_are_refused_before_anything_is_started(
    driver: BubblewrapDriver, tmp_path: Path, url: str
) -> None:
    await driver.reap(frozenset())
    with pytest.raises(SandboxFailure) as caught:
        await driver.fetch(url, "", tmp_path / "x", LIMITS)
    assert (caught.value.reason, caught.value.retryable) == ("address_refused", False)


async def test_a_name_that_stands_for_a_private_address_is_refused(
    driver: BubblewrapDriver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    async def rebinding(_: object, host: str, port: int) -> tuple[Address, ...]:
        asked.append(host)
        return (ip_address("8.8.8.8"), ip_address("10.1.2.3"))

    await driver.reap(frozenset())
    monkeypatch.setattr(addresses.Lookups, "resolve", rebinding)
    with pytest.raises(SandboxFailure) as caught:
        await driver.fetch("https://rebinding.example/x.git", "", tmp_path / "x", LIMITS)
    assert caught.value.reason == "address_refused"
    assert asked == ["rebinding.example"]


async def test_other_hosts_cannot_be_reached_from_inside_a_fetch(
    fetching: BubblewrapDriver, server: GitServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "attack.py"
    program.write_text(
        f"""
import socket, sys
def ask(line):
    s = socket.socket(socket.AF_UNIX); s.connect("/run/egress.sock"); s.settimeout(3)
    s.sendall(line + b"\\r\\nHost: x\\r\\n\\r\\n"); return s.recv(100).split(b"\\r\\n")[0].decode()
answers = [ask(line) for line in (b"CONNECT 127.0.0.1:22 HTTP/1.1", b"CONNECT localhost:22 HTTP/1.1",
    b"CONNECT 169.254.169.254:80 HTTP/1.1", b"GET http://localhost:{server.port}/ HTTP/1.1",
    b"CONNECT localhost:{server.port}.evil HTTP/1.1")]
try:
    socket.create_connection(("127.0.0.1", {server.port}), 2); answers.append("reached")
except OSError: pass
sys.exit(" | ".join(answers))
"""
    )
    monkeypatch.setattr("codeagent.sandboxes.fetch._PROGRAM", program)
    with pytest.raises(SandboxFailure) as caught:
        await fetching.fetch(server.url(), "", tmp_path / "x", LIMITS)
    said = str(caught.value).rpartition(": ")[2].split(" | ")
    assert said == ["HTTP/1.1 403 Forbidden"] * 5
    assert server.requests == []
