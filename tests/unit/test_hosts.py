"""Which hosts may be listed for commands to reach, and what an entry of a list lets them reach."""

from __future__ import annotations

import pytest

from codeagent.hosts import covers, is_name, listed, patterns_for, within


@pytest.mark.parametrize(
    ("text", "entry"),
    [
        ("pypi.org", "pypi.org:443"),
        ("PyPI.org:443", "pypi.org:443"),
        ("registry.example.org:8443", "registry.example.org:8443"),
        ("*.pythonhosted.org", "*.pythonhosted.org:443"),
        ("*.a.example.org:65535", "*.a.example.org:65535"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example:443"),
        ("pypi.corp.internal", "pypi.corp.internal:443"),
        (f"{'a' * 63}.{'b' * 63}.{'c' * 63}.{'d' * 57}.org", f"{'a' * 63}.{'b' * 63}.{'c' * 63}.{'d' * 57}.org:443"),
    ],
)
def test_names_are_listed_in_one_form(text: str, entry: str) -> None:
    assert listed(text) == entry
    assert listed(entry) == entry


@pytest.mark.parametrize(
    "text",
    [
        *("", ".", "*", "*.", "*.*", "*.org", "pypi", "pypi..org", ".pypi.org", "pypi.org.", "py_pi.org", "-pypi.org"),
        *("pypi-.org", "a.*.org", "py*.org", "**.pypi.org", "*.*.pypi.org", "pypi.org/simple", "https://pypi.org"),
        *("user@pypi.org", "pypi.org ", "pypi .org", "pypi.org\n", "pypi\0.org", "bücher.example", "pypi.org#x"),
        *("pypi.org:", "pypi.org:0", "pypi.org:65536", "pypi.org:0443", "pypi.org:https", "pypi.org:443:443"),
        *("pypi.org:+1", f"{'a' * 64}.org", f"{'a.' * 127}org", "pypi.org:４４３"),
        *(
            "127.0.0.1",
            "10.0.0.1:443",
            "8.8.8.8",
            "127.1",
            "0x7f.1",
            "0x7f000001",
            "2130706433",
            "0177.0.0.1",
            "1.2.3.0x4",
        ),
        *("[::1]", "::1", "[::1]:443", "fe80::1%eth0", "::ffff:127.0.0.1", "*.0.0.1"),
        *("localhost", "localhost:443", "x.localhost", "*.localhost", "localhost.localdomain", "x.localdomain"),
        *("metadata.google.internal", "metadata.google.internal:80", "x.metadata.goog", "instance-data.ec2.internal"),
        *("*.google.internal", "*.corp.internal", "*.printer.local", "*.my.lan", "*.my.home.arpa"),
    ],
)
def test_what_is_no_name_of_a_host_elsewhere_is_not_listed(text: str) -> None:
    with pytest.raises(ValueError, match=r"^(it should be|a port is|the machine itself|names of a private)"):
        listed(text)


@pytest.mark.parametrize(
    ("entry", "other", "reached"),
    [
        ("pypi.org:443", "pypi.org:443", True),
        ("pypi.org:443", "pypi.org:8443", False),
        ("pypi.org:443", "files.pypi.org:443", False),
        ("pypi.org:443", "*.pypi.org:443", False),
        ("*.example.org:443", "a.example.org:443", True),
        ("*.example.org:443", "b.a.example.org:443", True),
        ("*.example.org:443", "*.a.example.org:443", True),
        ("*.example.org:443", "*.example.org:443", True),
        ("*.example.org:443", "example.org:443", False),
        ("*.example.org:443", "badexample.org:443", False),
        ("*.example.org:443", "*.badexample.org:443", False),
        ("*.example.org:443", "a.example.org:80", False),
        ("*.a.example.org:443", "*.example.org:443", False),
    ],
)
def test_an_entry_covers_what_it_lets_reach(entry: str, other: str, reached: bool) -> None:
    assert covers(entry, other) is reached


def test_two_lists_let_reach_what_both_do() -> None:
    allowed = ("pypi.org:443", "*.example.org:443", "one.example.net:443", "two.example.net:443")
    asked = ("pypi.org:443", "a.example.org:443", "*.b.example.org:443", "*.example.net:443", "other.org:443")
    both = ("*.b.example.org:443", "a.example.org:443", "one.example.net:443", "pypi.org:443", "two.example.net:443")
    assert within(asked, allowed) == within(allowed, asked) == both
    assert within(asked, ()) == within((), allowed) == ()


def test_a_host_is_found_by_the_patterns_above_it() -> None:
    assert list(patterns_for("a.b.org", 443)) == ["*.b.org:443", "*.org:443"]
    assert all(covers(pattern, "a.b.org:443") for pattern in patterns_for("a.b.org", 443))
    assert not any(is_name(address) for address in ("127.0.0.1", "::1", "1.example.127", "localhost"))
