"""What an effect leaves behind: facts for its own stream, and an answer for the agent worker."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from codeagent import clock
from codeagent.eventlog.stored import StoredEvent, metadata_for, prepare
from codeagent.messages.envelope import Envelope, Event, Payload
from codeagent.subjects.key import SubjectKey
from codeagent.telemetry.traces import current_traceparent


@dataclass(frozen=True, slots=True)
class Began:
    """What was about to be done, and when. It is committed with the end of it."""

    fact: Event
    at: datetime
    actor_id: str


@dataclass(frozen=True, slots=True)
class Ended:
    """How an effect ended: the fact for its own stream, the answer for the agent worker. `actor_id` names which part of
    the system has done it, where that says more than that it was a part of it; `before` is what happened on the way,
    and when."""

    stream_id: str
    fact: Event
    answer: Payload
    actor_id: str | None = None
    before: tuple[tuple[Event, datetime], ...] = ()

    def envelope(self, cause: Envelope) -> Envelope:
        """Of the answer to the command with that envelope."""
        return Envelope(
            id=clock.new_uuid(),
            name=self.answer.NAME,
            version=self.answer.VERSION,
            source=f"/tenants/{cause.tenant_id}/effects/{cause.id}",
            time=clock.now(),
            tenant_id=cause.tenant_id,
            key=cause.key,
            correlation_id=cause.correlation_id,
            causation_id=cause.id,
            traceparent=current_traceparent() or cause.traceparent,
        )

    def facts(self, cause: Envelope, began: Began | None, key: SubjectKey | None) -> list[StoredEvent]:
        """What to record, from version 1 on, sealed with `key`."""
        told = [] if began is None else [(began.fact, began.at, began.actor_id)]
        actor_id = self.actor_id or cause.actor_id
        told += [(fact, at, actor_id) for fact, at in self.before]
        told.append((self.fact, clock.now(), actor_id))
        metadata = metadata_for(cause, cause.key)
        return [
            prepare(
                fact,
                stream_id=self.stream_id,
                version=version,
                event_id=clock.new_uuid(),
                tenant_id=cause.tenant_id,
                occurred_at=at,
                metadata={**metadata, "authid": actor_id},
                key=key,
            )
            for version, (fact, at, actor_id) in enumerate(told, 1)
        ]
