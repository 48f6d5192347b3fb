"""Web pages that may call the API are those of the origins that are named, exactly."""

from __future__ import annotations

from dataclasses import replace

import httpx2
import pytest

from codeagent.edge.app import create_app
from tests.integration.edge.conftest import Api

MINE = "https://console.example.com"


@pytest.fixture
def durable() -> bool:
    return True


@pytest.mark.parametrize(
    ("origin", "admitted"),
    [
        (MINE, True),
        ("https://console.example.com.evil.com", False),
        ("http://console.example.com", False),
        ("null", False),
    ],
)
async def test_a_page_is_admitted_by_its_whole_origin(api: Api, origin: str, admitted: bool) -> None:
    context = api.context
    policy = replace(context.policy, allowed_origins=(MINE,), public_url="https://api.example.com")
    app = create_app(replace(context, policy=policy))
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://edge") as page:
        asked = {
            "Origin": origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "x-api-key",
        }
        preflight = await page.options("/v1/runs", headers=asked)
        answer = await page.get("/v1/runs", headers={"Origin": origin})
    allowed = origin if admitted else None
    assert preflight.headers.get("access-control-allow-origin") == allowed
    assert (answer.status_code, answer.headers.get("access-control-allow-origin")) == (401, allowed)
    assert "access-control-allow-credentials" not in answer.headers


async def test_without_origins_no_page_is_admitted_and_the_document_names_the_public_address(api: Api) -> None:
    answer = await api.http.get("/v1/runs", headers={"Origin": MINE})
    assert "access-control-allow-origin" not in answer.headers
    policy = replace(api.context.policy, public_url="https://api.example.com")
    app = create_app(replace(api.context, policy=policy))
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://edge") as client:
        document = (await client.get("/openapi.json")).json()
    assert document["servers"] == [{"url": "https://api.example.com"}]
