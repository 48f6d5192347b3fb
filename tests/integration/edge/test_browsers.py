"""What browsers are told: which pages may call, what they may do with an answer, and that only TLS will do."""

from __future__ import annotations

from dataclasses import replace

import httpx2
import pytest

from codeagent.edge.context import EdgePolicy
from tests.integration.edge.conftest import Api
from tests.integration.edge.test_api import code

pytestmark = pytest.mark.parametrize("durable", [True], indirect=True, ids=["durable"])

CONSOLE = "https://console.example.com"


@pytest.fixture
def edge_policy(edge_policy: EdgePolicy) -> EdgePolicy:
    return replace(edge_policy, allowed_origins=(CONSOLE,), public_url="https://codeagent.example.com")


async def preflight(api: Api, origin: str, method: str = "POST", headers: str = "") -> httpx2.Response:
    asked = {"Origin": origin, "Access-Control-Request-Method": method, "Access-Control-Request-Headers": headers}
    return await api.http.options("/v1/runs", headers={name: value for name, value in asked.items() if value})


async def test_a_listed_page_may_call_and_asks_only_once(api: Api) -> None:
    allowed = await preflight(api, CONSOLE, headers="authorization, content-type, idempotency-key, prefer")
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == CONSOLE
    assert allowed.headers["access-control-max-age"] == "7200"
    assert "access-control-allow-credentials" not in allowed.headers
    assert "Origin" in allowed.headers["vary"]
    answer = await api.http.get("/v1/runs", headers={"Origin": CONSOLE})
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, CONSOLE)
    assert {"ETag", "RateLimit", "Retry-After"} <= set(answer.headers["access-control-expose-headers"].split(", "))


async def test_errors_can_be_read_by_the_page_too(api: Api) -> None:
    for path, headers in (("/v1/runs/none", {}), ("/v1/runs", {"X-API-Key": "wrong"}), ("/v1/runs?limit=x", {})):
        answer = await api.http.get(path, headers={"Origin": CONSOLE, **headers})
        assert answer.status_code >= 400
        assert answer.headers["access-control-allow-origin"] == CONSOLE


STRANGERS = (
    "https://console.example.com.evil.example",
    "https://evil.example",
    "http://console.example.com",
    "https://console.example.com:8443",
    "https://sub.console.example.com",
    "null",
    "*",
)


async def test_a_page_that_is_not_listed_may_not(api: Api) -> None:
    for origin in STRANGERS:
        refused = await preflight(api, origin)
        assert (refused.status_code, code(refused)) == (403, "forbidden"), origin
        assert refused.json()["trace_id"]
        assert refused.headers["x-content-type-options"] == "nosniff"
        answer = await api.http.get("/v1/runs", headers={"Origin": origin})
        for seen in (refused, answer):
            assert "access-control-allow-origin" not in seen.headers, origin
            assert "Origin" in seen.headers["vary"]


async def test_methods_and_headers_that_are_not_ours_are_refused(api: Api) -> None:
    assert (await preflight(api, CONSOLE, "TRACE")).status_code == 403
    assert (await preflight(api, CONSOLE, headers="x-surprise")).status_code == 403


async def test_every_answer_has_every_security_header(api: Api) -> None:
    for path in ("/livez", "/v1/runs", "/nowhere", "/openapi.json", "/v1/runs/none"):
        headers = (await api.http.get(path)).headers
        assert headers["strict-transport-security"] == "max-age=63072000; includeSubDomains"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["permissions-policy"] == "camera=(), geolocation=(), microphone=()"
        assert headers["cache-control"]
        assert "server" not in headers
        for name in ("strict-transport-security", "x-content-type-options", "cache-control", "x-request-id"):
            assert len(headers.get_list(name)) == 1
