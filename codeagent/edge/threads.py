"""How a session goes on: the files and the words that a run takes over from those before it."""

from __future__ import annotations

from dataclasses import dataclass

from codeagent.agent.history import extended
from codeagent.edge.context import EdgeContext
from codeagent.errors import Conflict, InvalidInput, NotFound
from codeagent.messages.values import Files, Source, Turn
from codeagent.projections.view import RunView
from codeagent.projects.sessions import Session
from codeagent.subjects.key import Erased

UNKNOWN_SESSION = "unknown_session"


@dataclass(frozen=True, slots=True)
class Thread:
    """A session as its next run finds it. `first` and `previous` are runs; None where there is none yet. `after` is the
    one that the next comes after, which may be one that was erased and has nothing left to go on from."""

    session: Session
    first: str | None
    previous: RunView | None
    history: tuple[Turn, ...]
    after: str | None = None

    @property
    def source(self) -> Source | None:
        return None if self.previous is None else self.previous.source

    @property
    def files(self) -> Files | None:
        """What a run that never had files leaves is what it would have begun with."""
        return None if self.previous is None else self.previous.files


async def thread_of(context: EdgeContext, tenant_id: str, session_id: str) -> Thread:
    """Raises `InvalidInput` for a session that there is not, `Conflict` (`session_busy`) while a run is at work."""
    try:
        session = await context.sessions.find(tenant_id, session_id)
    except NotFound as error:
        raise InvalidInput(error.detail, code=UNKNOWN_SESSION, pointer="/session_id") from None
    runs = await context.sessions.runs(tenant_id, session_id)
    for run_id in runs.newest:
        try:
            previous = await context.views.get(tenant_id, run_id)
        except NotFound:
            continue  # its command got lost
        except Erased:
            return Thread(session, runs.first, None, (), run_id)
        if not previous.status.terminal:
            raise Conflict("A run of the session is at work.", code="session_busy")
        return Thread(session, runs.first, previous, await _history(context, previous), run_id)
    return Thread(session, runs.first, None, ())


async def _history(context: EdgeContext, previous: RunView) -> tuple[Turn, ...]:
    submitted = await context.submissions.submitted(previous.tenant_id, previous.run_id)
    earlier = submitted.history if submitted is not None else None
    turn = Turn(task=previous.task, answer=previous.message, status=previous.status)
    return extended(earlier or (), turn)
