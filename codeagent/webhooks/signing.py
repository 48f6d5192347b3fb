"""Secrets and signatures as Standard Webhooks 1.0.0 has them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from collections.abc import Sequence
from uuid import UUID

_PREFIX = "whsec_"
_BYTES = 32


def new_secret() -> str:
    """A fresh secret, shown once to whoever will verify with it."""
    return _PREFIX + base64.b64encode(os.urandom(_BYTES)).decode()


def signed_headers(secrets: Sequence[str], message_id: UUID, timestamp: int, body: bytes) -> dict[str, str]:
    """The three headers of a message. Every secret signs: while one is being replaced, receivers may have either.

    `timestamp` is that of the attempt, in seconds since 1970.
    """
    content = f"{message_id}.{timestamp}.".encode() + body
    signatures = [f"v1,{_signature(secret, content)}" for secret in secrets]
    return {
        "webhook-id": str(message_id),
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(signatures),
    }


def _signature(secret: str, content: bytes) -> str:
    key = base64.b64decode(secret.removeprefix(_PREFIX))
    return base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()
