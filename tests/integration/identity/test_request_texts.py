"""What is written about a person in requests of theirs: sealed with their key, and gone with them."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from tests.integration.identity.conftest import World
from tests.integration.identity.oauth_client import OAuthClient
from tests.integration.identity.test_privacy import (
    REQUESTS,
    ask,
    begun,
    carry_on,
    erased,
    refused,
    stored,
    user_id_of,
)

NOTE, REASON, EXTENSION = "canary note", "canary reason", "canary extension"


async def written(owner: OAuthClient, subject: str) -> dict[str, Any]:
    """A request with all that can be written in one."""
    made = (await ask(owner, "objection", subject, NOTE)).json()
    due_at = datetime.fromisoformat(made["created_at"]) + timedelta(days=60)
    longer = (await carry_on(owner, made, due_at=due_at.isoformat(), reason=EXTENSION)).json()
    rejected = await carry_on(owner, longer, status="rejected", reason=REASON)
    assert rejected.status_code == 200, rejected.text
    return dict(rejected.json())


async def texts(owner: OAuthClient, subject: str) -> list[tuple[str, str, str]]:
    items = (await owner.get(f"{REQUESTS}?subject={subject}")).json()["items"]
    return [(item["note"], item["reason"], item["extension"]) for item in items if item["kind"] == "objection"]


async def test_it_is_read_by_those_who_may_and_by_nobody_in_the_database(world: World) -> None:
    owner, theirs = await world.owner(), await user_id_of(await world.colleague())
    request = await written(owner, theirs)
    assert (request["note"], request["reason"], request["extension"]) == (NOTE, REASON, EXTENSION)
    assert await texts(owner, theirs) == [(NOTE, REASON, EXTENSION)]
    access = await begun(owner, "access", theirs)
    exported = (await owner.get(f"{REQUESTS}/{access['id']}/export")).json()["privacy_requests"]
    assert {(item["note"], item["reason"], item["extension"]) for item in exported} == {
        (NOTE, REASON, EXTENSION),
        ("By letter.", "", ""),
    }
    assert await stored(world, "canary") == set()


async def test_it_is_gone_with_its_subject_and_so_is_what_tells_what_it_said(world: World) -> None:
    owner, theirs = await world.owner(), await user_id_of(await world.colleague())
    request = await written(owner, theirs)
    [row] = await world.database.fetch("SELECT fingerprint FROM privacy_requests")
    # As it was written before anything was sealed.
    await world.sql("UPDATE privacy_requests SET reason = 'canary in clear'")
    erasure = await begun(owner, "erasure", theirs)
    assert erasure["result"]["removed"]["privacy_requests"] == 2
    await erased(world)
    assert await texts(owner, theirs) == [("", "", "")]
    assert [await stored(world, text) for text in ("canary", row["fingerprint"])] == [set(), set()]
    assert (await owner.get(f"{REQUESTS}/{request['id']}")).json()["status"] == "rejected"
    repeat = await ask(owner, "erasure", theirs)
    assert (repeat.status_code, repeat.json()["id"]) == (200, erasure["id"])


async def test_what_is_written_of_somebody_who_is_erased_is_not_kept(world: World) -> None:
    owner, theirs = await world.owner(), await user_id_of(await world.colleague())
    made = (await ask(owner, "objection", theirs, NOTE)).json()
    await begun(owner, "erasure", theirs)
    await erased(world)
    due_at = datetime.fromisoformat(made["created_at"]) + timedelta(days=60)
    longer = (await carry_on(owner, made, due_at=due_at.isoformat(), reason=EXTENSION)).json()
    assert longer["extension"] == ""
    again = await carry_on(owner, longer, due_at=(due_at + timedelta(days=9)).isoformat(), reason=EXTENSION)
    assert refused(again) == (409, "invalid_state_transition"), "more time is given once"
    assert await stored(world, "canary") == set()
