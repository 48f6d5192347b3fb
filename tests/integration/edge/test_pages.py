"""Lists in pages: in order, each item once and none left out, whatever is added meanwhile."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from codeagent import clock
from codeagent.agent_registry.agent import NAME
from codeagent.edge.app import openapi
from codeagent.eventlog.log import EventLog
from codeagent.projections.runs import RunsProjector
from tests.integration.eventlog.steps import commit_step, new_run, started, step
from tests.integration.identity.conftest import EMAIL, PASSWORD, TENANT, World, world
from tests.integration.identity.oauth_client import OAuthClient
from tests.integration.projections.logs import submitted

__all__ = ["world"]  # a fixture
Add = Callable[[], Awaitable[object]]


@dataclass(frozen=True)
class Listing:
    """One list: its route, the path to ask for, how one item is added, and how its pages are named.

    `key` tells items apart. Lists of what is newest first grow before the first page, the others behind the last.
    `takes` says which cursors are plain words of this list, whoever made them.
    """

    route: str
    path: str
    add: Add
    cursor: str = "cursor"
    following: str = "next_cursor"
    newest_first: bool = True
    most: int = 200
    key: str = "id"
    takes: Callable[[str], object] = lambda _: False


@dataclass
class Installation:
    """An owner who is logged in, a run and a webhook of theirs."""

    world: World
    owner: OAuthClient
    run_id: str
    webhook_id: str = ""
    session_id: str = ""
    version: int = 0
    made: int = 0

    async def add_run(self) -> None:
        await commit_step(self.world.database, step(new_run(), 0, [started()], tenant=TENANT))
        await RunsProjector(self.world.database, EventLog(self.world.database)).catch_up()

    async def add_event(self) -> None:
        await commit_step(self.world.database, step(self.run_id, self.version, [started()], tenant=TENANT))
        self.version += 1

    async def add_session(self) -> str:
        return await self.post("/v1/sessions", title="test")

    async def add_session_run(self) -> None:
        run_id = new_run()
        fact = submitted(run_id, self.world.user_id, "test/model").model_copy(update={"session_id": self.session_id})
        await commit_step(self.world.database, step(run_id, 0, [fact], tenant=TENANT))
        await RunsProjector(self.world.database, EventLog(self.world.database)).catch_up()

    def new(self, word: str) -> str:
        """A name that there is not yet. Later ones are behind earlier ones in the order of letters."""
        self.made += 1
        return f"{word}-{self.made:03}"

    async def add_hold(self) -> None:
        member = await self.post("/v1/members", email=f"{self.new('held')}@example.org", role="viewer")
        answer = await self.owner.call("PUT", f"/v1/privacy/holds/{member}")
        assert answer.status_code == 200, answer.text

    async def log_in(self) -> None:
        client = self.world.client()
        (await client.log_in(EMAIL, PASSWORD)).raise_for_status()

    async def add_webhook(self) -> None:
        self.webhook_id = await self.post("/v1/webhooks", url="http://127.0.0.1:9/", event_types=["*"])

    async def post(self, path: str, **body: object) -> str:
        """The id of what was made, if it has one."""
        headers = {"Authorization": f"Bearer {self.owner.access}", "Idempotency-Key": str(clock.new_uuid())}
        answer = await self.owner.http.post(path, json=body, headers=headers)
        assert answer.status_code in {201, 202}, answer.text
        return str(answer.json().get("id", ""))

    def adding(self, path: str, **body: object) -> Add:
        """How one is made with a POST. What can be called in the body is another one each time."""

        async def add() -> None:
            await self.post(path, **{name: value() if callable(value) else value for name, value in body.items()})

        return add

    def listings(self) -> dict[str, Listing]:
        scoped = {"name": "test", "scopes": ["runs:read"]}
        repository = "https://git.example.org/shop.git"
        spending = {"period": "day", "unit": "usd", "limit": "1"}
        key, account = self.adding("/v1/api-keys", **scoped), self.adding("/v1/service-accounts", **scoped)
        agent = self.adding("/v1/agents", name=lambda: self.new("zz"))
        agent_version = self.adding("/v1/agents/versioned/versions", model="builtin/repair")
        project = self.adding("/v1/projects", name=lambda: self.new("shop"), repository=repository)
        budget = self.adding("/v1/budgets", name=lambda: self.new("most"), **spending)
        member = self.adding("/v1/members", email=lambda: f"{self.new('ada')}@example.org", role="viewer")
        request = self.adding("/v1/privacy/requests", kind="access", subject=self.world.user_id)
        breach = self.adding("/v1/privacy/breaches", summary="A key was lost.", discovered_at="2026-01-01T00:00:00Z")
        delivery = self.adding(f"/v1/webhooks/{self.webhook_id}/test")
        versions = "/v1/agents/versioned/versions"
        session = f"/v1/sessions/{self.session_id}"
        behind: dict[str, Any] = {"cursor": "after", "newest_first": False, "most": 500}
        webhook = f"/v1/webhooks/{self.webhook_id}"
        events = f"/v1/runs/{self.run_id}/events"
        made = (
            Listing("/v1/runs", "/v1/runs", self.add_run),
            Listing("/v1/agents", "/v1/agents", agent, newest_first=False, takes=NAME.fullmatch),
            Listing("/v1/agents/{agent_id}/versions", versions, agent_version, key="number", takes=str.isdecimal),
            Listing("/v1/api-keys", "/v1/api-keys", key),
            Listing("/v1/budgets", "/v1/budgets", budget),
            Listing("/v1/members", "/v1/members", member, newest_first=False),
            Listing("/v1/privacy/breaches", "/v1/privacy/breaches", breach),
            Listing("/v1/privacy/holds", "/v1/privacy/holds", self.add_hold, key="subject"),
            Listing("/v1/privacy/requests", "/v1/privacy/requests", request),
            Listing("/v1/projects", "/v1/projects", project),
            Listing("/v1/sessions", "/v1/sessions", self.add_session),
            Listing("/v1/sessions/{session_id}/runs", f"{session}/runs", self.add_session_run),
            Listing("/v1/service-accounts", "/v1/service-accounts", account),
            Listing("/v1/webhooks", "/v1/webhooks", self.add_webhook),
            Listing("/v1/webhooks/{webhook_id}/deliveries", f"{webhook}/deliveries", delivery),
            Listing("/v1/auth/sessions", "/v1/auth/sessions", self.log_in),
            Listing(
                "/v1/runs/{run_id}/events",
                events,
                self.add_event,
                following="next_after",
                takes=str.isdecimal,
                **behind,
            ),
            Listing("/v1/events", "/v1/events", self.add_event, **behind),
        )
        return {listing.route: listing for listing in made}


ELSEWHERE = {
    "/v1/admin/dead-letters": (
        "test_dead_letters.py::test_several_are_narrowed_down_and_listed_page_by_page_newest_first"
    ),
    "/v1/admin/providers/{provider}/credentials": (
        "test_provider_credentials.py::test_several_are_listed_page_by_page_newest_first"
    ),
    "/v1/admin/tenants": "test_admin.py::test_tenants_are_listed_and_looked_at",
    "/v1/agents/{agent_id}/stats": "test_agent_statistics.py::test_the_figures_of_each_version_are_shown_to_its_tenant_alone",
    "/v1/audit/events": "test_audit.py::test_a_search_in_pages_is_complete_stays_as_it_was_and_is_one_read",
    "/v1/runs/{run_id}/calls": "test_calls.py::test_pages_have_every_call_once_and_in_order",
    "/v1/runs/{run_id}/approvals": "test_approvals.py::test_what_was_asked_before_stays_in_the_list",
    "/v1/usage": "test_budgets.py::test_a_list_of_usage_is_continued_by_its_link",
}
"""Lists that do not grow like the others, and what holds them to the same."""
LISTS = [
    "/v1/agents",
    "/v1/agents/{agent_id}/versions",
    "/v1/api-keys",
    "/v1/auth/sessions",
    "/v1/budgets",
    "/v1/events",
    "/v1/members",
    "/v1/privacy/breaches",
    "/v1/privacy/holds",
    "/v1/privacy/requests",
    "/v1/projects",
    "/v1/runs",
    "/v1/runs/{run_id}/events",
    "/v1/service-accounts",
    "/v1/sessions",
    "/v1/sessions/{session_id}/runs",
    "/v1/webhooks",
    "/v1/webhooks/{webhook_id}/deliveries",
]


@pytest.fixture
async def installed(world: World) -> Installation:
    made = Installation(world, await world.owner(), new_run())
    await made.add_webhook()
    await made.post("/v1/agents", name="versioned")
    made.session_id = await made.add_session()
    return made


def next_of(answer: httpx2.Response) -> str | None:
    link = answer.headers.get("link")
    if link is None:
        return None
    assert link.startswith("<")
    assert link.endswith('>; rel="next"')
    return str(link[1:].partition(">")[0])


def test_every_list_is_here() -> None:
    paged = [
        path
        for path, item in openapi()["paths"].items()
        if any(parameter["name"] == "limit" for parameter in item.get("get", {}).get("parameters", ()))
    ]
    assert sorted(paged) == sorted(LISTS + list(ELSEWHERE))
    for test in ELSEWHERE.values():
        path, _, name = test.partition("::")
        assert f"def {name}(" in (Path(__file__).parent / path).read_text()


@pytest.mark.parametrize("route", LISTS)
async def test_the_next_links_lead_through_everything_once_while_items_are_added(
    installed: Installation, route: str
) -> None:
    listing = installed.listings()[route]
    for _ in range(5):
        await listing.add()
    everything = (await installed.owner.get(f"{listing.path}?limit={listing.most}")).json()
    assert everything[listing.following] is None
    expected = [item[listing.key] for item in everything["items"]]
    seen: list[str] = []
    following: str | None = f"{listing.path}?limit=2"
    while following is not None:
        answer = await installed.owner.get(following)
        page, following = answer.json(), next_of(answer)
        assert len(page["items"]) <= 2
        assert (following is None) == (page[listing.following] is None)
        seen += [item[listing.key] for item in page["items"]]
        # One for a page of two: so a list that grows at its end has one.
        await listing.add()
    if listing.newest_first:
        assert seen == expected
        assert len(expected) >= 5
    else:
        known = set(expected)
        assert [each for each in seen if each in known] == expected
        assert len(set(seen)) == len(seen)


GARBAGE = (
    "x",
    "~",
    "%00",
    "%F0%9F%A6%8A",
    "-1",
    "1.5",
    "9" * 15 + "x",
    urlsafe_b64encode(b"0001-01-01T00:00:00+23:59~run_x").decode(),
    urlsafe_b64encode(b"2026-01-01T00:00:00~run_x").decode(),
)


async def test_a_cursor_that_is_none_of_this_list_is_refused(installed: Installation) -> None:
    listings = list(installed.listings().values())
    cursors = {}
    for listing in listings:
        for _ in range(2):
            await listing.add()
        page = (await installed.owner.get(f"{listing.path}?limit=1")).json()
        cursors[listing.route] = str(page[listing.following])
    for listing in listings:
        own = cursors[listing.route]
        assert (await installed.owner.get(f"{listing.path}?{listing.cursor}={own}")).status_code == 200
        # A place among a session's runs is one among all runs.
        alike = {cursors[each] for each in cursors if each.endswith("/runs") and listing.route.endswith("/runs")}
        for cursor in {*GARBAGE, *cursors.values()} - {own} - alike:
            if listing.takes(cursor):
                continue
            answer = await installed.owner.get(f"{listing.path}?{listing.cursor}={cursor}")
            found = answer.status_code, answer.json().get("code")
            assert found == (400, "malformed_cursor"), (listing.route, cursor)


async def test_a_page_has_a_least_and_a_most(installed: Installation) -> None:
    await installed.add_event()
    for listing in installed.listings().values():
        for limit in (1, listing.most):
            assert (await installed.owner.get(f"{listing.path}?limit={limit}")).status_code == 200
        for beyond in (0, -1, listing.most + 1, "x"):
            answer = await installed.owner.get(f"{listing.path}?limit={beyond}")
            assert answer.status_code == 422, (listing.route, beyond)
            assert answer.json()["errors"][0]["pointer"] == "query:limit"
