"""What the edge says of itself: documents, schemas and well-known places, and how long each may be kept."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import jsonschema
import pytest
from fastapi import Depends
from openapi_spec_validator import validate

from codeagent import clock
from codeagent.edge.context import EdgePolicy, RunReader
from codeagent.edge.deprecation import Retirement
from codeagent.edge.openapi import build
from codeagent.messages.catalog import CURRENT
from codeagent.telemetry.metrics import REGISTRY
from tests.integration.edge.conftest import TOPICS, Api
from tests.integration.edge.test_api import code

pytestmark = pytest.mark.parametrize("durable", [True], indirect=True, ids=["durable"])

PUBLIC = "https://codeagent.example.com"


@pytest.fixture
def edge_policy(edge_policy: EdgePolicy) -> EdgePolicy:
    return replace(edge_policy, public_url=PUBLIC, security_contact="mailto:security@example.com")


@pytest.fixture
async def anonymous(api: Api) -> Api:
    """The same client, without a credential."""
    del api.http.headers["X-API-Key"]
    return api


async def test_the_openapi_document_is_served_and_not_sent_twice(anonymous: Api) -> None:
    answer = await anonymous.http.get("/openapi.json")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert answer.headers["cache-control"] == "public, max-age=300"
    document = answer.json()
    validate(document)
    assert document["servers"] == [{"url": PUBLIC}]
    again = await anonymous.http.get("/openapi.json", headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == answer.headers["etag"]
    assert again.headers["cache-control"] == answer.headers["cache-control"]
    stale = await anonymous.http.get("/openapi.json", headers={"If-None-Match": 'W/"other"'})
    assert stale.status_code == 200


async def test_the_asyncapi_document_is_served_too(anonymous: Api) -> None:
    answer = await anonymous.http.get("/asyncapi.json")
    document = answer.json()
    assert set(document["channels"]) == {"websocket", *(topic.name for topic in TOPICS)}
    again = await anonymous.http.get("/asyncapi.json", headers={"If-None-Match": answer.headers["etag"]})
    assert again.status_code == 304


async def test_every_message_has_a_schema_that_may_be_kept_for_ever(anonymous: Api) -> None:
    items = (await anonymous.http.get("/v1/schemas")).json()["items"]
    assert {(item["name"], item["version"]) for item in items} == {(n, p.VERSION) for n, p in CURRENT.items()}
    for item in items[:3]:
        answer = await anonymous.http.get(item["href"])
        assert answer.headers["content-type"] == "application/schema+json"
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        jsonschema.Draft202012Validator.check_schema(answer.json())
        again = await anonymous.http.get(item["href"], headers={"If-None-Match": answer.headers["etag"]})
        assert again.status_code == 304
    for wrong in ("/v1/schemas/none/1", "/v1/schemas/run.started/99", "/v1/schemas/run.started/x"):
        missing = await anonymous.http.get(wrong)
        assert (missing.status_code, code(missing)) == (404, "not_found")


async def test_well_known_places_say_where_things_are(anonymous: Api) -> None:
    contact = await anonymous.http.get("/.well-known/security.txt")
    assert contact.headers["content-type"] == "text/plain; charset=utf-8"
    fields = dict(line.split(": ", 1) for line in contact.text.splitlines())
    assert fields["Contact"] == "mailto:security@example.com"
    assert fields["Canonical"] == f"{PUBLIC}/.well-known/security.txt"
    expires = datetime.fromisoformat(fields["Expires"])
    assert timedelta(days=170) < expires - clock.now() < timedelta(days=365)
    catalog = await anonymous.http.get("/.well-known/api-catalog")
    assert catalog.headers["content-type"].startswith("application/linkset+json")
    (links,) = catalog.json()["linkset"]
    for link in (*links["service-desc"], *links["describedby"]):
        path = link["href"].removeprefix(PUBLIC)
        assert (await anonymous.http.get(path)).status_code == 200
    head = await anonymous.http.head("/.well-known/api-catalog")
    assert head.headers["link"] == f'<{PUBLIC}/.well-known/api-catalog>; rel="api-catalog"'


async def test_without_a_contact_there_is_no_security_txt(anonymous: Api) -> None:
    object.__setattr__(anonymous.context, "policy", replace(anonymous.context.policy, security_contact=None))
    answer = await anonymous.http.get("/.well-known/security.txt")
    assert (answer.status_code, code(answer)) == (404, "not_found")


OLD = Retirement(
    deprecated=datetime(2027, 1, 1, tzinfo=UTC),
    sunset=datetime(2027, 7, 2, tzinfo=UTC),
    notice="https://codeagent.example.com/docs/versioning",
    successor="/v1/newer",
)


async def test_a_route_that_is_going_to_be_removed_says_so_with_every_answer(api: Api) -> None:
    @api.app.get("/v1/older", dependencies=[Depends(OLD)])
    async def older(caller: RunReader, fails: bool = False) -> dict[str, str]:
        """Something that there is a newer way for."""
        if fails:
            raise RuntimeError
        return {}

    for answer in (await api.http.get("/v1/older"), await api.http.get("/v1/older?fails=true")):
        assert answer.headers["deprecation"] == "@1798761600"
        assert answer.headers["sunset"] == "Fri, 02 Jul 2027 00:00:00 GMT"
        assert parsedate_to_datetime(answer.headers["sunset"]) == OLD.sunset
        links = answer.headers["link"]
        assert '<https://codeagent.example.com/docs/versioning>; rel="deprecation"' in links
        assert '</v1/newer>; rel="successor-version"' in links
        assert 'rel="sunset"' in links
    assert "deprecation" not in (await api.http.get("/v1/runs")).headers
    api.app.openapi_schema = None
    assert build(api.app)["paths"]["/v1/older"]["get"]["deprecated"] is True
    assert REGISTRY.get_sample_value("codeagent_deprecated_requests_total", {"http_route": "/v1/older"}) == 2
