"""A run as it is now: folded from its stream, kept between requests, and known from its submission before that."""

from __future__ import annotations

from collections import OrderedDict
from datetime import timedelta

from codeagent import clock
from codeagent.errors import NotFound
from codeagent.eventlog.accept import StoredSubmission, SubmissionLedger
from codeagent.eventlog.tenants import TenantLog
from codeagent.messages.commands import SubmitRun
from codeagent.messages.ids import parse_typed_id, run_stream
from codeagent.projections.view import RunView

MOST_KEPT = 2_000
UNCONFIRMED = timedelta(seconds=60)
"""How long a submission is shown whose command the broker has not confirmed."""


class RunViews:
    """Reads only what is new since the last look at a run."""

    def __init__(self, log_reader: TenantLog, submissions: SubmissionLedger) -> None:
        self._log = log_reader
        self._submissions = submissions
        self._views: OrderedDict[str, RunView] = OrderedDict()

    async def get(self, tenant_id: str, run_id: str) -> RunView:
        """Raises `NotFound`, also for another tenant's run."""
        if parse_typed_id("run", run_id) is None:
            raise NotFound("There is no such run.")
        view = self._views.pop(run_id, None) or RunView(run_id, "")
        async for stored in self._log.stream(tenant_id, run_stream(run_id), view.version):
            if stored.version == view.version + 1:
                view.tenant_id = stored.tenant_id
                view.apply(stored)
        if view.version:
            self._keep(view)
        if view.version == 0 or not view.task:
            submission = await self._submissions.find(tenant_id, run_id)
            if submission is not None and _visible(submission):
                view.tenant_id = submission.tenant_id
                view.ordered(SubmitRun.model_validate(submission.request), submission.created_at)
        if view.tenant_id != tenant_id:
            raise NotFound("There is no such run.")
        return view

    def _keep(self, view: RunView) -> None:
        self._views[view.run_id] = view
        if len(self._views) > MOST_KEPT:
            self._views.popitem(last=False)


def _visible(submission: StoredSubmission) -> bool:
    return submission.accepted or clock.now() - submission.created_at < UNCONFIRMED
