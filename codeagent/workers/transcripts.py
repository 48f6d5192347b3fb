"""What has been said in a run, and before it: folded from the log, and kept between the calls of the run."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

from codeagent.agent.history import extended
from codeagent.agent.prompt import Transcript
from codeagent.errors import NotFound, Unavailable
from codeagent.eventlog.log import EventLog
from codeagent.eventlog.stored import StoredEvent
from codeagent.messages.events import InputReceived, RunEnded, RunSubmitted
from codeagent.messages.ids import run_stream
from codeagent.messages.values import RunStatus, Turn
from codeagent.workers.replayed import check_replayed, is_outlived

MOST_TRANSCRIPTS = 2_000
KEPT_SECONDS = 900.0
"""After a run's last call: what was said is in memory no longer than it may be needed."""


class Transcripts:
    """Conversations as of a version of their run's stream."""

    def __init__(self, log: EventLog, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        self._kept: OrderedDict[str, tuple[float, Transcript]] = OrderedDict()  # the longest unused first

    async def of(self, tenant_id: str, run_id: str, at_version: int) -> Transcript:
        """Raises `NotFound` for another tenant's run, `Unavailable` where the stream is not that long."""
        self._forget()
        _, transcript = self._kept.pop(run_id, (0.0, Transcript()))  # ours alone while it grows
        if transcript.version > at_version or await is_outlived(self._log, transcript):
            transcript = Transcript()
        await self._read(transcript, tenant_id, run_id, at_version)
        await check_replayed(self._log, transcript.submitted)
        self._kept[run_id] = (self._clock(), transcript)
        return transcript

    def __len__(self) -> int:
        return len(self._kept)

    def _forget(self) -> None:
        old = self._clock() - KEPT_SECONDS
        while self._kept and (len(self._kept) >= MOST_TRANSCRIPTS or next(iter(self._kept.values()))[0] < old):
            self._kept.popitem(last=False)

    async def _read(self, transcript: Transcript, tenant_id: str, run_id: str, at_version: int) -> None:
        """Reads on, up to a version. What a run replays is its tenant's, whatever its command says."""
        while transcript.version < at_version:
            events = await self._log.read_stream(run_stream(run_id), transcript.version, 500)
            for stored in events[: at_version - transcript.version]:
                if stored.tenant_id != tenant_id:
                    raise NotFound("There is no such run.")
                event = stored.decode()
                transcript.add(event)
                if isinstance(event, InputReceived) and event.comment and stored.key_id is not None:
                    transcript.of_others.add(stored.key_id)
                if isinstance(event, RunSubmitted):
                    await self._begin(transcript, tenant_id, event)
            if not events:
                raise Unavailable("the run's stream is behind its own command")

    async def _begin(self, transcript: Transcript, tenant_id: str, event: RunSubmitted) -> None:
        if event.follows:
            runs = await self._log.read_ends([run_stream(run_id) for run_id in event.follows])
            transcript.history = earlier_turns(tenant_id, runs)
            transcript.of_others |= {stored.key_id for run in runs for stored in run if stored.key_id is not None}
        if event.replays is not None:
            replayed = Transcript()
            await self._read(replayed, tenant_id, event.replays.run_id, event.replays.until_version)
            transcript.follow(replayed)


def earlier_turns(tenant_id: str, runs: Sequence[Sequence[StoredEvent]]) -> tuple[Turn, ...]:
    """What was said in earlier runs of a session, oldest first, within bounds; each run by its first and last events.
    Nobody remembers one whose content is gone: it is read where it was said, and nowhere else."""
    turns: tuple[Turn, ...] = ()
    for run in runs:
        turn = _turn([event for event in run if event.tenant_id == tenant_id and not event.erased])
        turns = turns if turn is None else extended(turns, turn)
    return turns


def _turn(run: Sequence[StoredEvent]) -> Turn | None:
    """None of a run that was not submitted, or has not ended."""
    task: str | None = None
    for event in (stored.decode() for stored in run):
        if isinstance(event, RunSubmitted):
            task = event.task
        elif isinstance(event, RunEnded) and task is not None:
            return Turn(task=task, answer=event.message, status=RunStatus(event.NAME.removeprefix("run.")))
    return None
