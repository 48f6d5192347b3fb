"""A world for every test of webhooks, and a receiver in it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.integration.webhooks.relay import World, world
from tests.servers.webhook_receiver import WebhookReceiver


@pytest.fixture
async def here(newest_database_url: str) -> AsyncIterator[World]:
    async with world(newest_database_url) as made:
        yield made


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    with WebhookReceiver() as listening:
        yield listening
