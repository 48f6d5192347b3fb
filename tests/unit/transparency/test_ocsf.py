"""Lines of the audit in the OCSF schema: valid by the published one, and nothing that the CloudEvent does not say."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from codeagent.edge.audit_models import cloud_event
from codeagent.eventlog.stored import StoredEvent, prepare
from codeagent.messages.catalog import CONTROL_EVENTS, EFFECT_EVENTS, RUN_EVENTS, decode_data
from codeagent.messages.envelope import Event
from codeagent.messages.identity_events import LoginFailed, LoginSucceeded
from codeagent.messages.key_events import ApiKeyCreated
from codeagent.projections.audit import Outcome, audit_row
from codeagent.projections.audit_search import AuditEntry
from codeagent.transparency.ocsf import VERSION, ocsf_ended, ocsf_event
from codeagent.transparency.ocsf_classes import OTHER, classified
from tests.unit.transparency.ocsf_schema import problems

AT = datetime(2026, 11, 23, 12, 0, 0, 120_999, tzinfo=UTC)
_EXAMPLES = Path(__file__).parents[3] / "schemas" / "examples"
_STREAMS = {
    "auth": "user",
    "sandbox": "exec",
    "provider.call": "call",
    "access": "access",
}
ACTORS = (("app_user", "usr_1"), ("service_account", "sva_1"), ("api_key", "tests"), ("system", "run_1"))
Line = dict[str, Any]


def stored(fact: Event, actor: tuple[str, str] = ACTORS[0], **more: str) -> StoredEvent:
    """On a stream of the kind that it is really on."""
    kinds = ["run"] if type(fact) in RUN_EVENTS else []
    kinds += [kind for prefix, kind in _STREAMS.items() if fact.NAME.startswith(prefix)]
    return prepare(
        fact,
        stream_id=f"{kinds[0] if kinds else fact.NAME.partition('.')[0]}-it_1",
        version=3,
        event_id=UUID(int=7),
        tenant_id="ten_1",
        occurred_at=AT,
        metadata={"correlationid": str(UUID(int=9)), "authtype": actor[0], "authid": actor[1], **more},
    )


def line_of(event: StoredEvent, address: str | None = None, outcome: Outcome | None = None) -> Line:
    """As the export in CloudEvents has it."""
    row = audit_row(event)
    assert row is not None
    actor = (row.actor_type, row.actor_id)
    ended = outcome or row.outcome
    return cloud_event(AuditEntry(event, *actor, row.action, row.resource_kind, row.resource_id, ended, address))


def line(fact: Event, **more: Any) -> Line:
    return line_of(stored(fact), **more)


def examples() -> list[Event]:
    """One of every event that the audit tells of."""
    found = []
    for kind in (*CONTROL_EVENTS, *EFFECT_EVENTS, *RUN_EVENTS):
        fact = decode_data(kind.NAME, kind.VERSION, (_EXAMPLES / f"{kind.NAME}.v{kind.VERSION}.json").read_bytes())
        assert isinstance(fact, Event)
        found += [fact] if audit_row(stored(fact)) is not None else []
    return found


LOGIN = LoginSucceeded(user_id="it_1", session_id="lgn_1", client_id="cli")
FAILED = LoginFailed(user_id="it_1", client_id="cli", reason="wrong_password")
KEY = ApiKeyCreated(key_id="key_1", principal="usr_1", name="ci", scopes=("runs:read",), expires_at=AT + timedelta(1))


@pytest.mark.parametrize("fact", examples(), ids=lambda fact: fact.NAME)
def test_every_event_of_the_audit_is_valid_by_the_published_schema(fact: Event) -> None:
    for actor in ACTORS:
        for address in (None, "192.0.2.7", "2001:db8::7"):
            for outcome in Outcome:
                assert problems(ocsf_event(line_of(stored(fact, actor), address, outcome))) == []


def test_the_schema_does_say_something_against_what_is_wrong() -> None:
    right = ocsf_event(line(KEY))
    for wrong, place in (
        ({**right, "api": {}}, "$.api"),
        ({**right, "mine": 1}, "$: "),
        ({**right, "severity_id": 7}, "$.severity_id"),
        ({**right, "activity_name": "Delete"}, "$.activity_name"),
        ({name: value for name, value in right.items() if name != "src_endpoint"}, "$: "),
        ({**right, "src_endpoint": {"ip": "home"}}, "$.src_endpoint"),
        ({**right, "time": "yesterday"}, "$.time"),
    ):
        assert [each for each in problems(wrong) if each.startswith(place)], wrong


def test_a_login_is_an_authentication_of_the_account() -> None:
    told = ocsf_event(line(LOGIN, address="192.0.2.7"))
    assert (told["class_uid"], told["category_uid"], told["type_uid"]) == (3002, 3, 300201)
    assert (told["status"], told["severity"]) == ("Success", "Informational")
    assert told["user"] == {"uid": "it_1", "type_id": 1, "type": "User"}
    assert (told["src_endpoint"], told["session"]) == ({"ip": "192.0.2.7"}, {"uid": "lgn_1"})
    failed = ocsf_event(line(FAILED))
    assert (failed["type_uid"], failed["status_id"], failed["severity_id"]) == (300201, 2, 2)
    assert failed["status_detail"] == "failure: wrong_password"


def test_what_a_caller_does_is_an_activity_of_the_api_on_the_resource() -> None:
    told = ocsf_event(line(KEY, address="192.0.2.7"))
    assert (told["class_uid"], told["activity_id"], told["api"]) == (6003, 1, {"operation": "api_key.created"})
    assert told["resources"] == [{"uid": "it_1", "type": "api_key"}]
    assert told["actor"] == {"user": {"uid": "usr_1", "type_id": 1, "type": "User"}}
    assert ocsf_event(line(KEY))["src_endpoint"] == {"name": "unknown"}, "its address has been forgotten"


def test_what_the_system_does_by_itself_is_a_base_event() -> None:
    told = ocsf_event(line_of(stored(KEY, ("system", "operator"))))
    assert (told["class_uid"], told["activity_id"], told["activity_name"]) == (0, OTHER, "Created")
    assert told["actor"] == {"app_name": "CodeAgent", "app_uid": "operator"}


def test_moments_are_whole_milliseconds_and_kept_exactly_beside() -> None:
    told = ocsf_event(line(KEY))
    assert told["time"] == 1_795_435_200_120
    assert told["metadata"]["original_time"] == "2026-11-23T12:00:00.120999Z"


def test_the_place_in_the_log_and_all_that_the_schema_has_no_name_for_is_unmapped() -> None:
    event = stored(KEY)
    told = ocsf_event(line_of(event) | {"logindex": "41", "logpath": "x", "logmetadata": "{}"})
    assert told["unmapped"] == {
        "type": "io.codeagent.api_key.created.v1",
        "outcome": "success",
        "resourcekind": "api_key",
        "resourceid": "it_1",
        "leafhash": event.leaf_hash.hex(),
        "logindex": "41",
        "data": event.document(),
        "stream": "api_key-it_1",
        "version": 3,
    }
    metadata = told["metadata"]
    assert (metadata["version"], metadata["uid"], metadata["event_code"]) == (VERSION, str(UUID(int=7)), KEY.NAME)
    assert (metadata["tenant_uid"], metadata["correlation_uid"]) == ("ten_1", str(UUID(int=9)))


def texts(value: Any) -> set[str]:
    """All texts and numbers in it, as text."""
    if isinstance(value, dict):
        return {text for each in value.values() for text in texts(each)}
    if isinstance(value, list):
        return {text for each in value for text in texts(each)}
    return {str(value)}


@pytest.mark.parametrize("fact", examples(), ids=lambda fact: fact.NAME)
def test_nothing_is_told_that_the_cloudevent_does_not_tell(fact: Event) -> None:
    shown = line(fact)
    kind, activity = classified(fact.NAME, by_caller=True)
    ours = {"CodeAgent", "audit", VERSION, fact.NAME, f"{fact.NAME}: {shown['outcome']}", "unknown", "host"}
    told = ocsf_event(shown)
    ours |= {
        str(told["time"]),
        told["severity"],
        told["status"],
        told.get("status_detail", ""),
        "ten_1",
        "3",
        "User",
        "1",
    }
    ours |= {kind.name, kind.category, activity.name, told["type_name"], stored(fact).stream_id, "Service", "4"}
    numbers = {
        str(told[name]) for name in ("class_uid", "category_uid", "activity_id", "type_uid", "severity_id", "status_id")
    }
    assert texts(told) - texts(shown) <= ours | numbers


def test_what_callers_do_has_a_number_of_the_schemas_wherever_it_has_one() -> None:
    """A new event whose name ends otherwise comes out with a name of ours, which is right and tells tools little."""
    assert {fact.NAME for fact in examples() if classified(fact.NAME, by_caller=True)[1].id == OTHER} == {
        "access.refused", "budget.threshold_reached", "log.restored", "mcp.call.ended", "privacy.erasure.certified",
        "privacy.subject.erased", "provider.breaker_half_opened", "provider.breaker_opened", "provider.call.ended",
        "provider.call.switched", "run.canceled", "run.failed", "run.input_expired",
        "run.input_required", "sandbox.exec.ended", "signing_key.published",
        "user.role_changed", "webhook.tested",
    }  # fmt: skip


@pytest.mark.parametrize("fact", [KEY, LOGIN, FAILED], ids=lambda fact: fact.NAME)
def test_a_line_whose_fact_was_damaged_says_so(fact: Event) -> None:
    kept = {**line(fact), "data": {}, "unreadable": "corrupt_row"}
    del kept["correlationid"]
    told = ocsf_event(kept)
    assert problems(told) == []
    assert told["unmapped"]["unreadable"] == "corrupt_row"


def test_the_last_line_is_an_event_as_well() -> None:
    ended = ocsf_ended(
        {
            "id": "1",
            "type": "io.codeagent.audit.export.ended.v1",
            "source": "/tenants/ten_1/audit",
            "time": "2026-11-23T12:00:00.000000Z",
            "data": {"count": 3, "sha256": "00"},
        }
    )
    assert problems(ended) == []
    assert (ended["unmapped"]["data"], ended["metadata"]["tenant_uid"]) == ({"count": 3, "sha256": "00"}, "ten_1")
