"""From where a credential may be used."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

import pytest

from codeagent.identity.principal import Principal

ANYWHERE = Principal("ten_1", "usr_1", "key_1")
SOMEWHERE = replace(ANYWHERE, networks=(ip_network("192.0.2.0/24"), ip_network("2001:db8::/32")))


@pytest.mark.parametrize("address", ["192.0.2.7", "2001:db8::1", "::ffff:192.0.2.7"])
def test_an_address_within_a_network_is_let_in(address: str) -> None:
    assert SOMEWHERE.may_come_from(address)


@pytest.mark.parametrize("address", ["192.0.3.7", "2001:db9::1", "::ffff:192.0.3.7", "", None, "testclient"])
def test_any_other_is_not_nor_is_one_that_cannot_be_told(address: str | None) -> None:
    assert not SOMEWHERE.may_come_from(address)
    assert ANYWHERE.may_come_from(address)
