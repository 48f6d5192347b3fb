"""What happens to an API key: the stream `api_key-<id>`, written with the key's row."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, ClassVar

from codeagent.messages.envelope import Event
from codeagent.messages.personal import Personal


class ApiKeyCreated(Event):
    """`principal` is whom the key acts for; `replaces` the key that it was rotated from. Never the key itself."""

    NAME: ClassVar[str] = "api_key.created"

    key_id: str
    principal: str
    name: Annotated[str, Personal("telling keys apart", "what the user wrote")]
    scopes: tuple[str, ...]
    networks: Annotated[tuple[str, ...], Personal("binding keys to networks", "network addresses", [])] = ()
    expires_at: datetime
    replaces: str | None = None


class ApiKeyRotated(Event):
    """`successor` takes its place; it can still be used until `valid_until`."""

    NAME: ClassVar[str] = "api_key.rotated"

    key_id: str
    successor: str
    valid_until: datetime


class ApiKeyRevoked(Event):
    NAME: ClassVar[str] = "api_key.revoked"

    key_id: str
