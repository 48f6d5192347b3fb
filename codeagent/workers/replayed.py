"""Whether what a run goes on with, or was told by others, is still there to be told."""

from __future__ import annotations

from codeagent.agent.prompt import Transcript
from codeagent.eventlog.log import EventLog
from codeagent.messages.events import RunSubmitted
from codeagent.messages.ids import run_stream
from codeagent.subjects.key import Erased


async def check_replayed(log_reader: EventLog, run: RunSubmitted | None) -> None:
    """Asks the log each time: a transcript that is kept between calls outlives the content that it was made of. Raises
    `Erased` where that of a run that `run` replays, itself or by way of another, was erased or retired."""
    while run is not None and run.replays is not None:
        replayed, run = run.replays.run_id, None
        for stored in await log_reader.read_stream(run_stream(replayed), 0, 2):
            event = stored.decode()
            if isinstance(event, RunSubmitted):
                if stored.erased:
                    raise Erased(f"What {replayed} had said was erased: nothing can go on from there.")
                run = event


async def is_outlived(log_reader: EventLog, transcript: Transcript) -> bool:
    """Whether somebody was erased since who has written something in it."""
    keys = transcript.of_others
    return bool(keys) and any(key.shredded for key in (await log_reader.subjects.named(keys)).values())
