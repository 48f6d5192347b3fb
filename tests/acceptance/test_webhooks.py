"""The whole way: a run is submitted over HTTP, and a receiver is told of it, signed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.acceptance.checks import Watched
from tests.acceptance.conversations import EMPTY, line_writer
from tests.acceptance.system import UpSystem, client, wait_until
from tests.acceptance.test_main_job import start
from tests.servers.model_server import ModelServer
from tests.servers.webhook_receiver import WebhookReceiver, answer


@pytest.fixture
def telling(place: Path, providers_file: Path) -> Iterator[UpSystem]:
    """A system that may send webhooks to this machine."""
    allowed = {"CODEAGENT_WEBHOOK_LOOPBACK": "true"}
    system = UpSystem(place / "data", "--providers", str(providers_file), **allowed)
    yield system
    system.stop()


def call(system: UpSystem, method: str, path: str, **options: Any) -> httpx2.Response:
    headers = {"Authorization": f"Bearer {system.connection.api_key}", "Idempotency-Key": "hook"}
    return httpx2.request(method, f"{system.connection.url}{path}", headers=headers, timeout=20, **options)


@pytest.mark.timeout(240)
def test_a_receiver_is_told_of_a_run_every_event_of_it_though_the_relay_is_killed(
    telling: UpSystem, model_server: ModelServer, tmp_path: Path
) -> None:
    model_server.script = line_writer(2)
    api = client(telling)
    with WebhookReceiver(behaviours=[answer(500)]) as receiver:
        made = call(telling, "POST", "/v1/webhooks", json={"url": receiver.url, "event_types": ["run.*"]})
        assert made.status_code == 201, made.text
        hook = made.json()
        watched = Watched(start(api, EMPTY, tmp_path, "told"))
        watched.follow(api)
        telling.kill("relay")
        events = [
            event for event in api.follow(watched.run_id) if event.id is not None and event.name.startswith("run.")
        ]
        wanted = {event.data["id"] for event in events}
        first = receiver.wait_for(1)[0].message_id  # was refused, and comes again
        wait_until(
            lambda: set(receiver.ids()) >= wanted and receiver.ids().count(first) >= 2, 100, "everything to be told"
        )
        payloads = {request.message_id: request.verified(hook["secret"]) for request in receiver.received}
    assert set(payloads) == wanted
    assert payloads[events[-1].data["id"]]["type"] == "run.completed"
    assert {payload["data"]["run_id"] for payload in payloads.values()} == {watched.run_id}
    deliveries = call(telling, "GET", f"/v1/webhooks/{hook['id']}/deliveries").json()["items"]
    assert {delivery["event_id"] for delivery in deliveries} == wanted
