"""What the audit answers with: CloudEvents, and what a verification has found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from codeagent.errors import Unreadable
from codeagent.eventlog.verify import Finding
from codeagent.messages.envelope import TYPE_PREFIX, instant, to_structured
from codeagent.projections.audit import APPROVALS, EXEC_KIND, RUN_KIND
from codeagent.projections.audit_search import AuditEntry
from codeagent.transparency.notes import encoded

MOST_FINDINGS = 100
_OF_APPROVALS = frozenset({"approval_id", "tool", "decision"})
"""What of an approval the audit tells: neither the arguments nor the comment."""


def cloud_event(entry: AuditEntry) -> dict[str, Any]:
    """A line of the audit as a structured CloudEvent, with the extensions `outcome`, `resourcekind`, `resourceid` and,
    where it is known, `clientaddress`.

    What a run was told and has answered is for those who may read runs, and left out here, like what its commands have
    written; so is what was erased. Of what somebody was asked, there is which tool it was and what they decided. Where
    the fact cannot be read, the line says what is kept of it, without the content of `data`, and why in `unreadable`.
    """
    try:
        event = to_structured(entry.event.envelope(), _shown(entry))
    except Unreadable as error:
        event = _kept(entry) | {"unreadable": error.code}
    event |= {
        "outcome": entry.outcome.value,
        "resourcekind": entry.resource_kind,
        "resourceid": entry.resource_id,
    }
    if entry.address is not None:
        event["clientaddress"] = entry.address
    return event


def _shown(entry: AuditEntry) -> dict[str, Any]:
    """Raises `Unreadable`."""
    event = entry.event
    if not event.data or (entry.resource_kind == RUN_KIND and event.type not in APPROVALS):
        return {}
    document = event.document()
    if event.type in APPROVALS:
        said = document.get("request", document)
        if not isinstance(said, dict):
            raise Unreadable("its request is none", code="invalid_payload")
        return {name: value for name, value in said.items() if name in _OF_APPROVALS}
    if entry.resource_kind == EXEC_KIND:
        for told in (document.get("stdout"), document.get("stderr")):
            if told is None:
                continue
            if not isinstance(told, dict):
                raise Unreadable("its outputs are none", code="invalid_payload")
            told.pop("excerpt", None)
    return document


def _kept(entry: AuditEntry) -> dict[str, Any]:
    """What the line itself has, for a fact that was damaged since."""
    event = entry.event
    return {
        "specversion": "1.0",
        "datacontenttype": "application/json",
        "id": str(event.id),
        "source": f"/tenants/{event.tenant_id}/streams/{event.stream_id}",
        "type": f"{TYPE_PREFIX}{entry.action}.v{event.schema_version}",
        "time": instant(event.occurred_at),
        "sequence": f"{event.version:020d}",
        "authtype": entry.actor_type,
        "authid": entry.actor_id,
        "tenantid": event.tenant_id,
        "leafhash": event.leaf_hash.hex(),
        "data": {},
    }


class AuditPage(BaseModel):
    """Lines, newest first, as structured CloudEvents. `next_cursor` continues the search; None at its end. A line whose
    fact was damaged has `unreadable` (`corrupt_row`, `invalid_payload`) and what the audit had kept of it."""

    items: list[dict[str, Any]]
    next_cursor: str | None


class FindingModel(BaseModel):
    """One thing that is wrong. `event_id` is null where an event is missing."""

    stream_id: str
    version: int
    event_id: str | None
    problem: str

    @classmethod
    def of(cls, finding: Finding) -> Self:
        event_id = None if finding.event_id is None else str(finding.event_id)
        return cls(stream_id=finding.stream_id, version=finding.version, event_id=event_id, problem=finding.problem)


class VerificationModel(BaseModel):
    """Stored bytes held against their digests and leaf hashes. `verified` means that nothing wrong was found among the
    `events` checked; `complete`, that these were all."""

    stream_id: str
    verified: bool
    complete: bool
    events: int
    findings: list[FindingModel] = Field(max_length=MOST_FINDINGS, description="The first of them.")


class ConsistencyModel(BaseModel):
    """That the log of `to` entries begins with that of `from`: hashes in base64, in the order of RFC 9162."""

    model_config = ConfigDict(populate_by_name=True)

    old: int = Field(alias="from", description="Entries of the older log.")
    new: int = Field(alias="to", description="Entries of the newer one.")
    hashes: list[str] = Field(description="SHA-256 hashes in base64.")

    @classmethod
    def of(cls, old: int, new: int, hashes: Sequence[bytes]) -> Self:
        return cls(old=old, new=new, hashes=[encoded(each) for each in hashes])
