"""What happens to a model provider of the installation: the stream `provider-<name>`, which no tenant sees."""

from __future__ import annotations

from typing import Annotated, ClassVar

from codeagent.messages.envelope import Event
from codeagent.messages.personal import OfTenant


class BreakerChanged(Event):
    """Base of what a worker's breaker does. `worker` is its process; `reason` that of the failure that counted last, by
    our own name: never what a vendor wrote."""

    provider: str
    worker: str
    reason: str


class BreakerOpened(BreakerChanged):
    """The worker calls the provider no more, for a while."""

    NAME: ClassVar[str] = "provider.breaker_opened"


class BreakerHalfOpened(BreakerChanged):
    """The worker tries one call."""

    NAME: ClassVar[str] = "provider.breaker_half_opened"


class BreakerClosed(BreakerChanged):
    """The provider has answered, and is called as before."""

    NAME: ClassVar[str] = "provider.breaker_closed"


class CredentialAdded(Event):
    """Calls to the provider may be made with this key, which is not told."""

    NAME: ClassVar[str] = "provider.credential_added"

    provider: str
    credential_id: str
    label: Annotated[str, OfTenant("telling keys apart", "what the operator wrote")]


class CredentialRevoked(Event):
    """No call is begun with the key any more, and the installation has forgotten it."""

    NAME: ClassVar[str] = "provider.credential_revoked"

    provider: str
    credential_id: str
