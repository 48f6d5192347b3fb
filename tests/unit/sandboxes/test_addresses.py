"""Which hosts may be fetched from, and by which names."""

from __future__ import annotations

import asyncio
import socket
import threading
from pathlib import Path

import pytest

from codeagent.sandboxes import addresses
from codeagent.sandboxes.protocol import SandboxFailure
from codeagent.sandboxes.sources import TrustedHost, check_ref, parse_source


def answering(monkeypatch: pytest.MonkeyPatch, *found: str) -> None:
    def getaddrinfo(_host: str, port: int, *_args: object, **_more: object) -> list[object]:
        return [
            (socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in found
        ]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


async def test_a_name_is_public_only_if_every_address_of_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, "8.8.8.8", "2606:50c0:8000::153", "8.8.8.8")
    assert [str(address) for address in await addresses.Lookups().assert_public("host.example")] == [
        "8.8.8.8",
        "2606:50c0:8000::153",
    ]
    for hidden in ("10.0.0.1", "::1", "::ffff:8.8.8.8"):
        answering(monkeypatch, "8.8.8.8", hidden)
        with pytest.raises(SandboxFailure) as caught:
            await addresses.Lookups().assert_public("host.example")
        assert (caught.value.reason, caught.value.retryable) == ("address_refused", False)


async def test_a_name_nobody_knows_may_be_known_later(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_args: object, **_more: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(SandboxFailure) as caught:
        await addresses.Lookups().assert_public("nowhere.example")
    assert (caught.value.reason, caught.value.retryable) == ("fetch_failed", True)


async def test_a_name_server_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """And few names are asked for at once on behalf of one command, those that were given up included."""
    answer, asked = threading.Event(), []

    def silent(host: str, *_args: object, **_more: object) -> list[object]:
        asked.append(host)
        answer.wait(10)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("8.8.8.8", 1))]

    monkeypatch.setattr(socket, "getaddrinfo", silent)
    monkeypatch.setattr(addresses, "_LONGEST_SECONDS", 0.2)
    lookups = addresses.Lookups()
    looking = [lookups.resolve(f"{number}.example", 443) for number in range(8)]
    async with asyncio.timeout(5):
        failed = await asyncio.gather(*looking, return_exceptions=True)
    assert [getattr(failure, "reason", failure) for failure in failed] == ["fetch_failed"] * 8
    assert len(asked) == 2
    answer.set()
    async with asyncio.timeout(5):
        while True:  # its turn comes when those before it have ended
            try:
                assert [str(address) for address in await lookups.resolve("after.example", 443)] == ["8.8.8.8"]
                break
            except SandboxFailure:
                pass


@pytest.mark.parametrize(
    ("url", "authority"),
    [
        ("https://git.example/team/repo.git", "git.example:443"),
        ("https://GIT.example:443/r", "git.example:443"),
        ("https://[2606:50c0:8000::153]/r", "[2606:50c0:8000::153]:443"),
    ],
)
def test_plain_https_urls_are_taken(url: str, authority: str) -> None:
    assert parse_source(url).authority == authority


@pytest.mark.parametrize(
    "url",
    ["http://git.example/r", "ssh://git@git.example/r", "git@git.example:r", "file:///etc", "ftp://git.example/r",
     "ext::sh -c id", "https://user@git.example/r", "https://user:password@git.example/r", "https://git.example",
     "https://git.example/", "https://git.example:8443/r", "https://git.example:99999/r", "https://git.example/r?x=1",
     "https://git.example/r#x", "https://git.example/a b", "https://git.example/a\nb", "https:///r", "https://-x/r",
     "https://git_example/r", "https://é.example/r", "https://git.example\\@evil/r", "", "--upload-pack=id", "https://[::1/r"],
)  # fmt: skip
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(SandboxFailure) as caught:
        parse_source(url)
    assert (caught.value.reason, caught.value.retryable) == ("url_refused", False)


def test_a_trusted_host_may_have_a_port_of_its_own() -> None:
    trusted = [TrustedHost("Git.internal", 8443, Path("/ca.pem"))]
    source = parse_source("https://git.internal:8443/r", trusted)
    assert (source.trusted, source.url) == (trusted[0], "https://git.internal:8443/r")
    with pytest.raises(SandboxFailure):
        parse_source("https://git.internal:8444/r", trusted)
    assert parse_source("https://git.internal/r", trusted).trusted is None


@pytest.mark.parametrize("ref", ["", "main", "v1.0", "refs/heads/x", "feature/a-b_c", "a" * 40, "release+1"])
def test_refs_are_taken(ref: str) -> None:
    check_ref(ref)


@pytest.mark.parametrize(
    "ref",
    [
        "-x",
        "--upload-pack=id",
        "a..b",
        "a b",
        "a:b",
        "+a",
        "a~1",
        "a^",
        "@{u}",
        "a\nb",
        "a//b",
        "a/",
        "a.lock",
        "é",
        "x" * 300,
    ],
)
def test_other_refs_are_refused(ref: str) -> None:
    with pytest.raises(SandboxFailure) as caught:
        check_ref(ref)
    assert caught.value.reason == "url_refused"
