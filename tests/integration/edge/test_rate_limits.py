"""Rates at the edge: by credential, tenant and kind of route, and by address for those who show no valid credential."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import httpx2
import pytest

from codeagent.edge.context import EdgePolicy
from codeagent.edge.traffic.policy import Rate, RateClass, TrafficPolicy
from tests.integration.edge.conftest import Api
from tests.integration.edge.test_api import body, code

pytestmark = pytest.mark.parametrize("durable", [True], indirect=True, ids=["durable"])

DAY = 86_400
PROXY = "192.0.2.1"


@pytest.fixture
def traffic_policy() -> TrafficPolicy:
    """Windows of a day, so that none turns while a test runs."""
    return TrafficPolicy(
        rates={RateClass.SUBMIT: Rate(3, DAY), RateClass.WRITE: Rate(50, DAY), RateClass.READ: Rate(5, DAY)},
        tenant_factor=2,
        anonymous=Rate(4, DAY),
    )


@pytest.fixture
def edge_policy(edge_policy: EdgePolicy) -> EdgePolicy:
    return replace(edge_policy, trusted_proxies=(PROXY,))


@pytest.fixture
async def nobody(api: Api) -> AsyncIterator[httpx2.AsyncClient]:
    """Somebody without a credential."""
    transport = httpx2.ASGITransport(app=api.app, client=("203.0.113.9", 1))
    async with httpx2.AsyncClient(transport=transport, base_url="http://edge") as client:
        yield client


def calling_from(api: Api, address: str) -> httpx2.AsyncClient:
    transport = httpx2.ASGITransport(app=api.app, client=(address, 1))
    return httpx2.AsyncClient(transport=transport, base_url="http://edge")


async def test_a_credential_has_its_rate_and_is_told_of_it(api: Api) -> None:
    for left in (4, 3, 2, 1, 0):
        answer = await api.http.get("/v1/runs")
        assert answer.status_code == 200
        assert answer.headers["ratelimit-policy"] == '"read";q=5;w=86400, "read-tenant";q=10;w=86400'
        assert answer.headers["ratelimit"].startswith(f'"read";r={left};t=')
    refused = await api.http.get("/v1/runs")
    assert (refused.status_code, code(refused)) == (429, "quota_exceeded")
    problem = refused.json()
    assert problem["type"] == "https://iana.org/assignments/http-problem-types#quota-exceeded"
    assert problem["violated-policies"] == ["read"]
    assert problem["retryable"] is True
    assert 0 < int(refused.headers["retry-after"]) <= 2 * DAY
    assert refused.headers["ratelimit"].startswith('"read";r=0;t=')
    assert refused.headers["ratelimit-policy"] == '"read";q=5;w=86400'


async def test_runs_other_changes_reading_and_other_tenants_go_on(api: Api) -> None:
    wanted = await body(api)
    for number in range(3):
        assert (await api.submit(wanted, f"k{number}")).status_code == 202
    refused = await api.submit(wanted, "k9")
    assert (refused.status_code, code(refused)) == (429, "quota_exceeded")
    assert refused.json()["violated-policies"] == ["submit"]
    assert await body(api) == wanted
    assert (await api.http.get("/v1/runs")).status_code == 200
    assert (await api.stranger.get("/v1/runs")).status_code == 200


async def test_nothing_is_done_for_a_request_beyond_the_rate(api: Api) -> None:
    wanted = await body(api)
    for number in range(5):
        await api.submit(wanted, f"k{number}")
    assert await api.database.fetch("SELECT count(*) AS n FROM submissions") == [(3,)]


async def test_guessing_credentials_is_limited_by_address(api: Api, nobody: httpx2.AsyncClient) -> None:
    for left in (3, 2, 1, 0):
        wrong = await nobody.get("/v1/runs", headers={"X-API-Key": f"cak_{left}"})
        assert (wrong.status_code, code(wrong)) == (401, "unauthenticated")
        assert wrong.headers["ratelimit"].startswith(f'"anonymous";r={left};t=')
    refused = await nobody.get("/v1/runs")
    assert (refused.status_code, code(refused)) == (429, "quota_exceeded")
    assert refused.json()["violated-policies"] == ["anonymous"]
    # Whoever shares the address and has a credential is none the worse for it.
    assert (await nobody.get("/v1/runs", headers={"X-API-Key": api.key})).status_code == 200
    async with calling_from(api, "203.0.113.10") as neighbour:
        assert (await neighbour.get("/v1/runs")).status_code == 401


async def test_what_needs_no_credential_is_limited_by_address(api: Api) -> None:
    for number, path in enumerate(("/openapi.json", "/v1/schemas", "/nowhere", "/.well-known/api-catalog")):
        async with calling_from(api, f"203.0.113.{number}") as nobody:
            statuses = [(await nobody.get(path)).status_code for _ in range(5)]
        assert statuses[-1] == 429
        assert 429 not in statuses[:-1], path


@pytest.mark.parametrize(
    ("method", "path", "content"),
    [
        ("POST", "/v1/runs", b"{"),
        ("POST", "/v1/runs", b"{}"),
        ("DELETE", "/v1/runs", b""),
        ("POST", "/oauth2/token", b"a=1&a=2"),
        ("POST", "/oauth2/authorize", b"{"),
    ],
)
async def test_what_is_refused_before_anybody_asks_for_a_credential_is_limited_by_address(
    nobody: httpx2.AsyncClient, method: str, path: str, content: bytes
) -> None:
    kind = "application/x-www-form-urlencoded" if b"=" in content else "application/json"
    answers = [await nobody.request(method, path, content=content, headers={"Content-Type": kind}) for _ in range(5)]
    assert answers[-1].status_code == 429
    assert 429 not in [answer.status_code for answer in answers[:-1]]
    assert int(answers[-1].headers["retry-after"]) > 0


async def test_health_is_not_limited(api: Api, nobody: httpx2.AsyncClient) -> None:
    assert {(await nobody.get("/livez")).status_code for _ in range(10)} == {200}


async def test_an_address_is_believed_from_a_trusted_proxy_only(api: Api) -> None:
    async def attempts(client: httpx2.AsyncClient) -> list[int]:
        return [
            (await client.get("/v1/runs", headers={"X-Forwarded-For": f"198.51.100.{number}"})).status_code
            for number in range(6)
        ]

    async with calling_from(api, "203.0.113.9") as direct, calling_from(api, PROXY) as proxied:
        assert await attempts(direct) == [401] * 4 + [429] * 2
        assert await attempts(proxied) == [401] * 6
