"""Who calls is what the connection says, unless a proxy of the operator's says otherwise."""

from __future__ import annotations

import pytest
from starlette.types import Scope

from codeagent.edge.traffic.addresses import Proxies, origin_of


def scope(peer: str, *headers: tuple[str, str], kind: str = "http") -> Scope:
    made = [(name.encode(), value.encode()) for name, value in headers]
    return {"type": kind, "client": (peer, 4711), "scheme": kind.replace("websocket", "ws"), "headers": made}


def resolved(proxies: Proxies, made: Scope) -> Scope:
    proxies.resolve(made, dict(made["headers"]))
    return made


def test_what_a_stranger_says_of_itself_is_dropped() -> None:
    made = scope(
        "203.0.113.9",
        ("x-forwarded-for", "198.51.100.1"),
        ("x-forwarded-proto", "https"),
        ("x-real-ip", "198.51.100.1"),
        ("forwarded", "for=198.51.100.1"),
        ("accept", "*/*"),
    )
    for proxies in (Proxies(), Proxies(["10.0.0.0/8"])):
        found = resolved(proxies, {**made})
        assert (found["client"][0], found["scheme"]) == ("203.0.113.9", "http")
        assert found["headers"] == [(b"accept", b"*/*")]


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        ("198.51.100.7", "198.51.100.7"),
        ("198.51.100.7:5555", "198.51.100.7"),
        ("[2001:db8::7]:5555", "2001:db8::7"),
        ("2001:db8::7", "2001:db8::7"),
        ("1.1.1.1, 198.51.100.7", "198.51.100.7"),
        ("1.1.1.1, 198.51.100.7, 10.1.1.1", "198.51.100.7"),
        ("10.1.1.1, 10.1.1.2", "10.1.1.1"),
        ("198.51.100.7, nonsense", "10.0.0.1"),
        ("", "10.0.0.1"),
    ],
)
def test_of_what_a_proxy_says_the_last_that_is_no_proxy_counts(forwarded: str, client: str) -> None:
    found = resolved(Proxies(["10.0.0.0/8"]), scope("10.0.0.1", ("x-forwarded-for", forwarded)))
    assert found["client"][0] == client
    assert found["headers"] == []


def test_an_ipv4_address_is_the_same_one_as_an_ipv6_server_sees_it() -> None:
    found = resolved(Proxies(["10.0.0.0/8"]), scope("::ffff:10.0.0.1", ("x-forwarded-for", "::ffff:198.51.100.7")))
    assert found["client"][0] == "198.51.100.7"


def test_a_list_in_several_lines_is_one_list() -> None:
    lines = ("x-forwarded-for", "198.51.100.7"), ("x-forwarded-for", "10.1.1.1")
    assert resolved(Proxies(["10.0.0.0/8"]), scope("10.0.0.1", *lines))["client"][0] == "198.51.100.7"


@pytest.mark.parametrize(
    ("kind", "said", "scheme"),
    [("http", "https", "https"), ("websocket", "https", "wss"), ("http", "gopher", "http")],
)
def test_a_proxy_says_whether_its_client_used_tls(kind: str, said: str, scheme: str) -> None:
    made = scope("10.0.0.1", ("x-forwarded-proto", said), kind=kind)
    assert resolved(Proxies(["10.0.0.1"]), made)["scheme"] == scheme


def test_what_is_no_network_is_refused() -> None:
    with pytest.raises(ValueError, match="proxy"):
        Proxies(["proxy.example.com"])


def test_an_ipv6_network_is_one_client_and_addresses_are_not_kept() -> None:
    def origin(peer: str) -> str:
        return origin_of(scope(peer))

    assert origin("2001:db8:1:2::1") == origin("2001:db8:1:2:ffff::9") != origin("2001:db8:1:3::1")
    assert origin("198.51.100.7") == origin("::ffff:198.51.100.7") != origin("198.51.100.8")
    assert "198" not in origin("198.51.100.7")
    assert origin_of({"type": "http", "client": None}) == "unknown"
