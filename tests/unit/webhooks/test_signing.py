"""Signatures that the official library accepts, and those it must not."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from codeagent.webhooks.signing import new_secret, signed_headers

MESSAGE = UUID("019ab3f2-6c1e-7d52-9a33-6f0a4c2d9e10")
BODY = b'{"type":"run.completed"}'


def now() -> int:
    return int(datetime.now(UTC).timestamp())


def test_a_known_message_has_its_known_signature() -> None:
    # HMAC-SHA256 over "id.timestamp.body", computed with openssl.
    secret = "whsec_" + base64.b64encode(bytes(range(32))).decode()
    assert signed_headers([secret], MESSAGE, 1763862012, BODY) == {
        "webhook-id": "019ab3f2-6c1e-7d52-9a33-6f0a4c2d9e10",
        "webhook-timestamp": "1763862012",
        "webhook-signature": "v1,0KGteFXU2PMGyuWwD7/pcd8doBH5xfNS/PMFDmHkqfY=",
    }


def test_the_official_library_signs_the_same() -> None:
    secret, moment = new_secret(), datetime.now(UTC)
    ours = signed_headers([secret], MESSAGE, int(moment.timestamp()), BODY)["webhook-signature"]
    assert ours == Webhook(secret).sign(str(MESSAGE), moment, BODY.decode())


def test_while_a_secret_is_replaced_receivers_may_have_either() -> None:
    former, current = new_secret(), new_secret()
    headers = signed_headers([current, former], MESSAGE, now(), BODY)
    assert len(headers["webhook-signature"].split(" ")) == 2
    for secret in (former, current):
        assert Webhook(secret).verify(BODY, headers) == {"type": "run.completed"}
    with pytest.raises(WebhookVerificationError):
        Webhook(new_secret()).verify(BODY, headers)


@pytest.mark.parametrize("part", ["webhook-id", "webhook-timestamp", "body"])
def test_nothing_that_is_signed_can_be_changed(part: str) -> None:
    secret = new_secret()
    headers, body = signed_headers([secret], MESSAGE, now(), BODY), BODY
    if part == "body":
        body = BODY.replace(b"completed", b"cancelled")
    else:
        headers[part] = {"webhook-id": str(UUID(int=1)), "webhook-timestamp": str(now() - 5)}[part]
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(body, headers)


def test_an_old_message_is_recognised_as_such() -> None:
    secret = new_secret()
    late = int((datetime.now(UTC) - timedelta(minutes=6)).timestamp())
    with pytest.raises(WebhookVerificationError, match="too old"):
        Webhook(secret).verify(BODY, signed_headers([secret], MESSAGE, late, BODY))


def test_secrets_are_long_and_each_is_another() -> None:
    secrets = {new_secret() for _ in range(50)}
    assert len(secrets) == 50
    assert all(secret.startswith("whsec_") and len(base64.b64decode(secret[6:])) == 32 for secret in secrets)
