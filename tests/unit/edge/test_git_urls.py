"""Which repositories the edge lets a run name: public https ones, and those on hosts that the operator trusts."""

from __future__ import annotations

from pathlib import Path

import pytest

from codeagent.edge.git_sources import check_git_url
from codeagent.errors import InvalidInput
from codeagent.sandboxes.sources import TrustedHost, parse_source

TRUSTED = (TrustedHost("git.internal", 8443, Path("/ca.pem")), TrustedHost("localhost", 9443))


def refusal(url: str) -> tuple[str, str]:
    with pytest.raises(InvalidInput) as caught:
        check_git_url(url, TRUSTED)
    return caught.value.code, caught.value.pointer


@pytest.mark.parametrize(
    "url",
    ["https://github.com/a/b.git", "https://Example.org:443/a", "https://xn--bcher-kva.example/a"],
)
def test_public_names_are_taken(url: str) -> None:
    check_git_url(url)


@pytest.mark.parametrize("url", ["https://git.internal:8443/team/a.git", "https://localhost:9443/git/a.git"])
def test_a_trusted_host_is_taken_as_the_fetch_will_take_it(url: str) -> None:
    check_git_url(url, TRUSTED)
    assert parse_source(url, TRUSTED).trusted in TRUSTED


@pytest.mark.parametrize(
    "url",
    [
        "https://git.internal/team/a.git",  # trusted on another port only
        "https://git.internal:8444/team/a.git",
        "https://sub.git.internal:8443/team/a.git",
        "http://git.internal:8443/team/a.git",
        "https://user:password@git.internal:8443/team/a.git",
        "https://git.internal:8443/",
        "https://localhost/a.git",
        "https://example.org:8443/a.git",
    ],
)
def test_trust_goes_no_further_than_it_was_given(url: str) -> None:
    assert refusal(url) == ("unsupported_git_url", "/source/url")


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "10.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "2130706433", "0x7f.1", "0x7f.0x1", "127.1", "localhost",
     "intranet", "db.local", "vault.internal", "x.localhost", "localhost.", "8.8.8.8"],
)  # fmt: skip
def test_what_cannot_be_a_public_name_is_refused_in_every_spelling(host: str) -> None:
    assert refusal(f"https://{host}/a.git") == ("unsupported_git_url", "/source/url")
