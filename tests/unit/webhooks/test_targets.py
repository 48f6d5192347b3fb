"""Where webhooks may go: what a URL may look like, and what its host may stand for."""

from __future__ import annotations

import asyncio
import ipaddress
import threading
from collections.abc import Sequence

import pytest

from codeagent.webhooks.targets import Target, TargetPolicy, TargetRefused, Targets

INTERNAL = (ipaddress.ip_network("10.20.0.0/16"), ipaddress.ip_network("fd00:20::/32"))


PUBLIC = TargetPolicy()


def targets(policy: TargetPolicy = PUBLIC, **names: str) -> Targets:
    """Where each name stands for its addresses, separated by spaces; others are not known."""

    def lookup(host: str, port: int) -> Sequence[str]:
        if host.replace(".", "").isdecimal() or ":" in host:
            return [host]
        if host not in names:
            raise OSError("not known")
        return names[host].split()

    return Targets(policy, lookup=lookup)


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("https://a.example/x?y=1", Target("https", "a.example", 443, "/x?y=1")),
        ("https://A.Example:8443", Target("https", "a.example", 8443, "/")),
        ("https://bücher.example/", Target("https", "xn--bcher-kva.example", 443, "/")),
        ("https://[2606:50c0:8000::153]/h", Target("https", "2606:50c0:8000::153", 443, "/h")),
        ("https://a.example/%2e%2e/b", Target("https", "a.example", 443, "/%2e%2e/b")),
    ],
)
def test_https_on_a_usual_port_is_taken(url: str, target: Target) -> None:
    assert targets().parse(url) == target


@pytest.mark.parametrize(
    "url",
    ["", "x", "http://a.example/", "ftp://a.example/", "file:///etc/passwd", "gopher://a.example/", "https://",
     "https:///x", "https://a.example:22/", "https://a.example:0/", "https://a.example:99999/", "https://u@a.example/",
     "https://u:p@a.example/", "https://a.example/#f", "https://a.example/#", "https://a b/", "https://a.example./",
     "https://a.example\\@evil.example/", "https://[fe80::1%25eth0]/", "https://exa\nmple/", "https://a.example/\x00",
     "https://-a.example/", "https://a..example\u2025/"],
)  # fmt: skip
def test_anything_else_is_refused(url: str) -> None:
    with pytest.raises(TargetRefused) as refused:
        targets().parse(url)
    assert (refused.value.status, refused.value.code, refused.value.pointer) == (422, "unsupported_webhook_url", "/url")


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.0.0.1", "172.16.5.5", "192.168.1.1", "100.64.0.1", "169.254.169.254", "168.63.129.16", "0.0.0.0",
     "224.0.0.1", "::1", "::", "fe80::1", "fe80::1%2", "fd00:ec2::254", "ff02::1", "::ffff:8.8.8.8", "::ffff:127.0.0.1",
     "64:ff9b::7f00:1", "2002:7f00:1::"],
)  # fmt: skip
async def test_a_name_that_stands_for_what_is_not_public_is_refused(address: str) -> None:
    for found in (address, f"8.8.8.8 {address}", f"{address} 2606:50c0:8000::153"):
        with pytest.raises(TargetRefused):
            await resolved(targets(host=found), "https://host/")


async def resolved(known: Targets, url: str) -> list[str]:
    return [str(address) for address in await known.addresses(known.parse(url))]


async def test_the_addresses_are_those_that_will_be_dialled_each_once() -> None:
    known = targets(host="8.8.8.8 2606:50c0:8000::153 8.8.8.8")
    assert await resolved(known, "https://host/") == ["8.8.8.8", "2606:50c0:8000::153"]


async def test_whether_a_private_name_exists_cannot_be_told() -> None:
    details = set()
    for url in ("https://unknown/", "https://private/", "https://10.0.0.1/", "https://empty/"):
        with pytest.raises(TargetRefused) as refused:
            await resolved(targets(private="10.0.0.1", empty=""), url)
        details.add(refused.value.detail)
    assert len(details) == 1


@pytest.mark.parametrize("spelling", ["2130706433", "0x7f000001", "017700000001", "127.1", "0", "localhost", "[::1]"])
async def test_no_spelling_of_this_machine_gets_through(spelling: str) -> None:
    with pytest.raises(TargetRefused):
        await resolved(Targets(TargetPolicy()), f"https://{spelling}/")


async def test_internal_networks_are_reached_where_the_operator_says_so_and_by_https_alone() -> None:
    policy = TargetPolicy(networks=INTERNAL)
    known = targets(policy, inside="10.20.3.4", both="10.20.3.4 8.8.8.8 fd00:20::1", outside="10.21.0.1")
    assert await resolved(known, "https://inside/") == ["10.20.3.4"]
    assert len(await resolved(known, "https://both:8443/")) == 3
    for url in ("https://outside/", "https://inside:9000/", "http://inside/"):
        with pytest.raises(TargetRefused):
            await resolved(known, url)


async def test_in_development_loopback_is_reached_on_any_port_and_nothing_else_becomes_possible() -> None:
    known = targets(TargetPolicy(loopback=True), here="127.0.0.1 ::1", there="8.8.8.8", mixed="127.0.0.1 8.8.8.8")
    assert await resolved(known, "http://here:9000/") == ["127.0.0.1", "::1"]
    assert await resolved(known, "https://there/") == ["8.8.8.8"]
    for url in ("http://there/", "https://there:9000/", "http://mixed:9000/", "https://10.0.0.1/"):
        with pytest.raises(TargetRefused):
            await resolved(known, url)


async def test_a_name_server_that_never_answers_is_not_waited_for_and_delays_nobody_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("codeagent.webhooks.targets._LOOKUP_SECONDS", 0.2)
    release = threading.Event()

    def lookup(host: str, port: int) -> Sequence[str]:
        if host == "stuck":
            release.wait(30)
        return ["8.8.8.8"]

    known = Targets(TargetPolicy(), lookup=lookup, threads=2)
    try:
        stuck = asyncio.create_task(resolved(known, "https://stuck/"))
        assert await resolved(known, "https://quick/") == ["8.8.8.8"]
        with pytest.raises(TargetRefused):
            await stuck
        assert await asyncio.to_thread(lambda: "the loop's own threads are free") != ""
    finally:
        release.set()
        known.close()
