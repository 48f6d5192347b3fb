"""A run as it is now: folded from its stream, kept between requests, and known from its submission before that."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol
from uuid import UUID

from codeagent import clock
from codeagent.broker.tail import LiveRecord
from codeagent.broker.topics import RUN_EVENTS
from codeagent.errors import NotFound, Rejected
from codeagent.eventlog.accept import StoredSubmission, SubmissionLedger
from codeagent.eventlog.tenants import TenantLog
from codeagent.messages.commands import SubmitRun
from codeagent.messages.envelope import Event
from codeagent.messages.events import CancelRequested, InputReceived
from codeagent.messages.ids import parse_typed_id, run_stream
from codeagent.messages.values import RunStatus
from codeagent.projections.approvals import Approval
from codeagent.projections.view import RunView
from codeagent.subjects.key import Erased
from codeagent.telemetry import metrics

MOST_KEPT = 2_000
FINAL_SECONDS = 30.0
"""How long an ended run is shown without a look at the log. Its stream is over; what should come all the same is told
by the tail of the events topic, or found when this has passed."""
WORTH_SHARING = 100
"""Events. Fewer are read from the log about as quickly as their fold comes from elsewhere (`benchmarks/views.py`)."""
UNCONFIRMED = timedelta(seconds=60)
"""How long a submission is shown whose command the broker has not confirmed."""


@dataclass(slots=True)
class Snapshot:
    """A run as far as its stream was read, and the id of the newest event of that."""

    view: RunView
    event_id: UUID | None = None


class SharedSnapshots(Protocol):
    """Snapshots that other edges have made. Neither raises, nor holds up anybody for long."""

    async def get(self, tenant_id: str, run_id: str) -> Snapshot | None:
        """One that some edge made for this tenant and run, however old, or None."""

    def keep(self, snapshot: Snapshot) -> None:
        """Offers it to the others."""

    async def stop(self) -> None: ...


@dataclass(slots=True)
class _Kept:
    snapshot: Snapshot
    shared_version: int = 0
    final_until: float = 0.0

    @property
    def view(self) -> RunView:
        return self.snapshot.view


class RunViews:
    """Reads only what is new since the last look at a run: this edge's, or any edge's where they share."""

    def __init__(
        self, log_reader: TenantLog, submissions: SubmissionLedger, shared: SharedSnapshots | None = None
    ) -> None:
        self._log = log_reader
        self._submissions = submissions
        self._shared = shared
        self._kept: OrderedDict[str, _Kept] = OrderedDict()

    async def get(self, tenant_id: str, run_id: str) -> RunView:
        """Raises `NotFound`, also for another tenant's run, and `Erased`."""
        view = await self._known(tenant_id, run_id)
        await self._check_kept(view)
        return view

    async def _known(self, tenant_id: str, run_id: str) -> RunView:
        if parse_typed_id("run", run_id) is None:
            raise NotFound("There is no such run.")
        kept = self._kept.get(run_id)
        if kept is not None and kept.view.tenant_id == tenant_id:
            if kept.final_until > time.monotonic():
                metrics.RUN_VIEWS.labels("final").inc()
                return kept.view
            metrics.RUN_VIEWS.labels("kept").inc()
            await self._read(kept.snapshot, tenant_id)
            await self._note_emptied(kept.view)
        else:
            kept = await self._shared_by_others(tenant_id, run_id)
            if kept is not None:
                await self._note_emptied(kept.view)
            if kept is None:
                metrics.RUN_VIEWS.labels("log").inc()
                kept = _Kept(Snapshot(RunView(run_id, "")))
                await self._read(kept.snapshot, tenant_id)
        view = kept.view
        if view.version:
            self._keep(kept)
        if view.version == 0 or not view.task:
            submission = await self._submissions.find(tenant_id, run_id)
            if submission is not None and _visible(submission):
                view.tenant_id = submission.tenant_id
                view.ordered(SubmitRun.model_validate(submission.request), submission.created_at)
        if view.tenant_id != tenant_id:
            raise NotFound("There is no such run.")
        return view

    async def _check_kept(self, view: RunView) -> None:
        """Raises `Erased`. What is in memory may be older than that, so the key is asked for."""
        keys = {} if view.key_id is None else await self._log.subjects.named([view.key_id])
        if view.erased or any(key.shredded for key in keys.values()):
            self._kept.pop(view.run_id, None)
            raise Erased("What this run was about was erased.")

    async def _note_emptied(self, view: RunView) -> None:
        """Content of an ended run may go without another event in its stream."""
        if view.status.terminal and view.key_id is not None and not view.erased:
            view.erased = await self._log.is_emptied(view.tenant_id, view.run_id)

    async def at(self, tenant_id: str, run_id: str, version: int | None) -> RunView:
        """The run as it was after so many events; as it is, for None. Raises `NotFound`, also for another tenant's run,
        and `cursor_past_head` for a version that it does not have."""
        newest = await self.get(tenant_id, run_id)
        if version is None or version == newest.version:
            return newest
        if version > newest.version:
            raise Rejected("The run does not have so many events.", code="cursor_past_head")
        view = RunView(run_id, tenant_id)
        async for stored in self._log.stream(tenant_id, run_stream(run_id)):
            view.apply(stored)
            if view.version == version:
                break
        return view

    async def comment(self, view: RunView, approval: Approval) -> str:
        """What was written with an answer; nothing once its author is erased."""
        event = await self._said(view, approval.comment_at)
        return event.comment if isinstance(event, InputReceived) else ""

    async def reason(self, view: RunView) -> str:
        """Why the run was canceled, as whoever canceled it has written; nothing once they are erased."""
        event = await self._said(view, view.reason_at) if view.status is RunStatus.CANCELED else None
        return event.reason if isinstance(event, CancelRequested) else ""

    async def _said(self, view: RunView, version: int | None) -> Event | None:
        if version is None:
            return None
        found = await self._log.read_stream(view.tenant_id, run_stream(view.run_id), version - 1, 1)
        return found[0].decode() if found else None

    async def _read(self, snapshot: Snapshot, tenant_id: str) -> None:
        view = snapshot.view
        async for stored in self._log.stream(tenant_id, run_stream(view.run_id), view.version):
            # Others may be reading on with the same view.
            if stored.version == view.version + 1:
                view.tenant_id = stored.tenant_id
                view.apply(stored)
                snapshot.event_id = stored.id

    async def _shared_by_others(self, tenant_id: str, run_id: str) -> _Kept | None:
        """A snapshot, and what came since; None unless the log shows this tenant the very event that it ends with.

        So it cannot be another tenant's or another run's, nor be ahead of a log that was restored.
        """
        snapshot = None if self._shared is None else await self._shared.get(tenant_id, run_id)
        if snapshot is None:
            return None
        view, shared_version, proved = snapshot.view, snapshot.view.version, False
        async for stored in self._log.stream(tenant_id, run_stream(run_id), shared_version - 1):
            if not proved:
                proved = (stored.id, stored.version) == (snapshot.event_id, view.version)
                if not proved:
                    break
            elif stored.version == view.version + 1:
                view.apply(stored)
                snapshot.event_id = stored.id
        if not proved or (view.tenant_id, view.run_id) != (tenant_id, run_id):
            return None
        metrics.RUN_VIEWS.labels("shared").inc()
        return _Kept(snapshot, shared_version)

    def _keep(self, kept: _Kept) -> None:
        view = kept.view
        if view.status.terminal:
            kept.final_until = time.monotonic() + FINAL_SECONDS
        self._kept[view.run_id] = kept
        self._kept.move_to_end(view.run_id)
        if len(self._kept) > MOST_KEPT:
            self._kept.popitem(last=False)
        new = view.version - kept.shared_version
        if self._shared is not None and (
            new >= WORTH_SHARING or (new and view.status.terminal and view.version >= WORTH_SHARING)
        ):
            kept.shared_version = view.version
            self._shared.keep(kept.snapshot)

    def receive(self, record: LiveRecord) -> None:
        """Takes a live record: whatever a run's newest event is, what is kept of the run is to be looked at again."""
        if record.topic == RUN_EVENTS and (kept := self._kept.get(record.key)) is not None:
            kept.final_until = 0.0

    def reconnected(self) -> None:
        """Live records were missed: anything may have come."""
        for kept in self._kept.values():
            kept.final_until = 0.0


def _visible(submission: StoredSubmission) -> bool:
    return submission.accepted or clock.now() - submission.created_at < UNCONFIRMED
