"""What is looked up without being kept."""

from __future__ import annotations

import os

import pytest

from codeagent.identity.clients import answers_challenge
from codeagent.identity.digests import Digests, random_token
from tests.integration.identity.oauth_client import challenge

DIGESTS = Digests(os.urandom(32))


def test_an_e_mail_address_has_one_digest_however_it_is_written() -> None:
    assert DIGESTS.email(" Ada@Example.ORG ") == DIGESTS.email("ada@example.org") == DIGESTS.email("ａda@example.org")
    assert DIGESTS.email("ada@example.org") != DIGESTS.email("ada@example.com")
    assert Digests(os.urandom(32)).email("ada@example.org") != DIGESTS.email("ada@example.org")


@pytest.mark.parametrize(
    ("one", "other", "same_network", "same_address"),
    [
        ("198.51.100.7", "198.51.100.200", True, False),
        ("198.51.100.7", "198.51.101.7", False, False),
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::1", True, True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", True, False),
        ("2001:db8:1::1", "2001:db8:2::1", False, False),
        ("::ffff:198.51.100.7", "198.51.100.7", True, True),
        ("", "", True, True),
    ],
)
def test_networks_are_coarse_and_addresses_are_what_one_customer_has(
    one: str, other: str, same_network: bool, same_address: bool
) -> None:
    assert (DIGESTS.network(one) == DIGESTS.network(other)) is same_network
    assert (DIGESTS.address(one) == DIGESTS.address(other)) is same_address


def test_digests_of_different_kinds_never_meet() -> None:
    text = "198.51.100.0/24"
    made = {DIGESTS.email(text), DIGESTS.token(text), DIGESTS.network(text), DIGESTS.address(text)}
    assert len(made) == 4
    assert DIGESTS.throttle("account", b"ab", b"c") != DIGESTS.throttle("account", b"a", b"bc")


def test_a_successor_is_the_same_for_whoever_asks_with_all_three_parts() -> None:
    token, salt = random_token("crt"), os.urandom(16)
    successor = DIGESTS.successor(token, salt)
    assert successor == DIGESTS.successor(token, salt)
    assert successor.startswith("crt_")
    assert len(successor) == len(token) == 47
    others = {
        DIGESTS.successor(token, os.urandom(16)),
        DIGESTS.successor(random_token("crt"), salt),
        Digests(os.urandom(32)).successor(token, salt),
    }
    assert successor not in others


def test_a_verifier_answers_its_own_challenge_alone() -> None:
    verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
    # The example of RFC 7636, appendix B.
    assert answers_challenge(verifier, "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM")
    assert not answers_challenge(verifier[:-1] + "x", challenge(verifier))
    assert not answers_challenge("short", challenge("short"))
