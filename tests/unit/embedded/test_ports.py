"""Ports for bundled servers."""

from __future__ import annotations

import socket

import pytest

from codeagent.embedded import ports
from codeagent.errors import Unavailable


def test_a_port_somebody_listens_on_is_not_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert not ports.is_free(port)
    assert ports.is_free(port)


def test_ports_stay_below_the_range_for_outgoing_connections() -> None:
    assert all(20_000 <= ports.free_port() <= 32_000 for _ in range(50))


def test_a_machine_without_free_ports_gets_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "is_free", lambda _port: False)
    with pytest.raises(Unavailable) as refusal:
        ports.free_port()
    assert refusal.value.code == "no_free_port"
