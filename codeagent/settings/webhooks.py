"""Webhooks: where they may go, and how many at once."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field
from pydantic_settings import NoDecode

from codeagent.settings.about import About, Group, parsed

_Port = Annotated[int, Field(ge=1, le=65535)]


class WebhookSettings(Group):
    """Webhooks, for edges and relays."""

    webhook_ports: Annotated[tuple[_Port, ...], NoDecode, BeforeValidator(parsed), About(unit="ports")] = (443, 8443)
    """JSON list of the ports that receivers may have."""
    webhook_networks: Annotated[
        tuple[IPv4Network | IPv6Network, ...], NoDecode, BeforeValidator(parsed), About(unit="networks")
    ] = ()
    """JSON list of internal networks, as in `["10.20.0.0/16"]`, with receivers of your own. Whoever may make webhooks
    then reaches every host there on the allowed ports, by https."""
    webhook_loopback: bool = False
    """Whether webhooks may be sent to this very machine, on any port and by plain http as well. For development."""
    webhook_certificates: Path | None = None
    """PEM file of authorities that receivers' certificates may be signed by, besides the usual ones."""
    webhook_slots: Annotated[int, About(unit="deliveries")] = Field(default=64, ge=1, le=1000)
    """Deliveries at once in one relay."""
    webhook_slots_each: Annotated[int, About(unit="deliveries")] = Field(default=8, ge=1, le=100)
    """Of them to one webhook."""
    webhook_disable_after: Annotated[int, About(unit="deliveries")] = Field(default=10, ge=1, le=10_000)
    """A webhook is disabled once so many deliveries in a row were given up."""
    webhook_retention_days: Annotated[int, About(unit="days")] = Field(default=30, ge=5, le=3650)
    """How long deliveries and their attempts are remembered."""
