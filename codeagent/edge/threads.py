"""How a session goes on: the files that a run takes over, and the runs whose words it remembers."""

from __future__ import annotations

from dataclasses import dataclass

from codeagent.edge.context import EdgeContext
from codeagent.errors import Conflict, InvalidInput, NotFound
from codeagent.messages.values import Files, Source
from codeagent.projections.view import RunView
from codeagent.projects.sessions import Session
from codeagent.subjects.key import Erased

UNKNOWN_SESSION = "unknown_session"


@dataclass(frozen=True, slots=True)
class Thread:
    """A session as its next run finds it. `first` and `previous` are runs; None where there is none yet. `after` is the
    one that the next comes after, which may be one that was erased and has nothing left to go on from. `follows` are
    the ids of those whose words it remembers, oldest first."""

    session: Session
    first: str | None
    previous: RunView | None
    follows: tuple[str, ...]
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
    for place, run_id in enumerate(runs.newest):
        try:
            previous = await context.views.get(tenant_id, run_id)
        except NotFound:
            continue  # its command got lost
        except Erased:
            return Thread(session, runs.first, None, (), run_id)
        if not previous.status.terminal:
            raise Conflict("A run of the session is at work.", code="session_busy")
        return Thread(session, runs.first, previous, tuple(reversed(runs.newest[place:])), run_id)
    return Thread(session, runs.first, None, ())
