"""Erasing what a subject has left in the log, in files and in ledgers: a step at a time, each of which may be repeated.

    1 close the key       nothing new is sealed for the subject, anywhere, after `CACHE_SECONDS`
    2 end their runs      canceled like any other, and waited for
    3 empty the ledgers   effects, messages, submissions, dead letters, cached replies
    4 remove artifacts    that no fact of anybody else names, and recorded calls of others that tell what was answered
    5 shred the key       from here on nobody can read it, nor any copy of the log; a fact
    6 null the content    of every event; hashes and proofs still hold
    7 certify             what was done and what remains, signed

Steps 2 to 5 wait as long as the subject is under a legal hold.

What arrives late, from a broker that was away or a worker that was paused, is recorded without its content.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from codeagent import clock
from codeagent.eventlog.accept import SubmissionLedger
from codeagent.eventlog.database import Database
from codeagent.eventlog.facts import Author, ControlPlane
from codeagent.eventlog.hashing import digest_of
from codeagent.eventlog.unreadable import readable
from codeagent.identity.held import is_held
from codeagent.messages.calls import CallEnded
from codeagent.messages.ids import derived_uuid, erasure_stream
from codeagent.messages.privacy_events import ErasureCertified, SubjectErased
from codeagent.privacy import tables
from codeagent.privacy.certificate import certificate
from codeagent.privacy.stopping import stop_order
from codeagent.privacy.tables import Erasure
from codeagent.projections.artifact_references import ArtifactReferences, under_way
from codeagent.subjects.keys import CACHE_SECONDS
from codeagent.transparency.keys import LogKeys

SETTLED_AFTER = timedelta(seconds=2 * CACHE_SECONDS)
"""After a key was closed or shredded, no process has the former one any more."""
RemoveArtifacts = Callable[[str, Sequence[str]], Awaitable[Sequence[str]]]
"""Removes artifacts of a tenant by their digests, but those that somebody has just asked for; which it has removed."""


class ContentErasure:
    """`database` sees all tenants; what it seals with is shredded here. `topic` takes commands to runs."""

    def __init__(
        self,
        database: Database,
        remove: RemoveArtifacts,
        keys: LogKeys,
        *,
        topic: str,
        settled_after: timedelta = SETTLED_AFTER,
    ) -> None:
        self._database = database
        self._ledger = SubmissionLedger(database)
        self._remove = remove
        self._keys = keys
        self._topic = topic
        self._settled_after = settled_after

    def use(self, keys: LogKeys) -> None:
        """Signs with other keys from now on."""
        self._keys = keys

    async def advance(self, erasure: Erasure) -> bool:
        """As many steps as can be taken now; whether it is completed."""
        if erasure.closed_at is None:
            await self._close(erasure)
            return False
        if erasure.key_id is None:
            await self._complete(erasure)
            return True
        if erasure.shredded_at is None:
            if await self._unless_held(erasure, erasure.closed_at):
                await self._shred(erasure, erasure.key_id, erasure.closed_at)
            return False
        if clock.now() < erasure.shredded_at + self._settled_after:
            return False
        await self._remove_recordings(erasure)  # those of calls that were at work, too
        while await tables.erase_sealed(self._database, erasure):
            pass
        await self._remove_artifacts(erasure, last=True)  # those that late facts would have named, too
        await self._complete(erasure)
        return True

    async def _close(self, erasure: Erasure) -> None:
        at = clock.now()
        key_id = await self._database.subjects.close_for_good(erasure.tenant_id, erasure.subject_id, at)
        await tables.note(self._database, erasure, key_id=key_id, closed_at=at)

    async def _unless_held(self, erasure: Erasure, closed_at: datetime) -> bool:
        """Whether all is ready for the key to go. Whoever places a hold waits for what is removed here."""
        async with ControlPlane(self._database).change(_author(erasure)) as change:
            if await is_held(change, erasure.tenant_id, erasure.subject_id):
                return False
            return await self._is_quiet(erasure, closed_at) and await self._emptied(erasure)

    async def _shred(self, erasure: Erasure, key_id: str, closed_at: datetime) -> None:
        """The key, and the fact of it, once; and not where a hold was placed in the last moment."""
        async with ControlPlane(self._database).change(_author(erasure)) as change:
            if await is_held(change, erasure.tenant_id, erasure.subject_id):
                return
            at = await self._database.subjects.shred(key_id, clock.now())
            fact = SubjectErased(
                request_id=erasure.id, subject=erasure.subject_id, key_id=key_id, closed_at=closed_at, shredded_at=at
            )
            if await tables.note_once(change, erasure, "shredded_at", at):
                await change.record(erasure_stream(erasure.id), 1, fact)

    async def _is_quiet(self, erasure: Erasure, closed_at: datetime) -> bool:
        """Whether nothing of the subject is at work. What is, is asked to stop."""
        assert erasure.key_id is not None
        runs = await tables.runs_at_work(self._database, erasure.tenant_id, erasure.key_id, erasure.runs)
        fresh = [run_id for run_id in runs if run_id not in erasure.runs]
        for run_id in fresh:  # before they are noted: an order that is written twice is one
            order = stop_order(self._topic, erasure.tenant_id, run_id, _named(erasure, run_id), "erasure")
            await self._ledger.enqueue(order)
        if fresh:
            erasure.runs.extend(fresh)
            await tables.note(self._database, erasure, runs=erasure.runs)
        return not runs and clock.now() >= closed_at + self._settled_after

    async def _emptied(self, erasure: Erasure) -> bool:
        """Whether ledgers and files are rid of the subject. Not before the list of artifacts is complete."""
        if not await tables.is_projected(self._database, erasure, ArtifactReferences.NAME):
            return False
        counts = dict(erasure.counts)
        for table, rows in (await tables.remove_ledger_rows(self._database, erasure)).items():
            counts[table] = counts.get(table, 0) + rows
        counts["runs_canceled"] = len(erasure.runs)
        counts["events"] = await tables.sealed_events(self._database, erasure)
        erasure.counts.update(counts)
        await self._remove_recordings(erasure)
        await self._remove_artifacts(erasure, last=False)
        return True

    async def _remove_recordings(self, erasure: Erasure) -> None:
        """Recorded calls in runs of others, which tell what the subject had answered there."""
        counts, after = erasure.counts, 0
        while found := await tables.calls_told(self._database, erasure, after, tables.BATCH):
            after = found[-1].global_position
            ended = [readable(stored, "erasure") for stored in found]
            asked = {call.request_digest for call in ended if isinstance(call, CallEnded) and call.recorded}
            gone = await self._remove(erasure.tenant_id, sorted(asked))
            counts["artifacts"] = counts.get("artifacts", 0) + len(gone)

    async def _remove_artifacts(self, erasure: Erasure, *, last: bool) -> None:
        """What is gone and counted is not counted again: names are forgotten with the files. What somebody else is at
        work with stays on the list, until the `last` time: then it is left to the sweep of what nothing names."""
        counts, after = erasure.counts, ""
        while found := await tables.artifacts_of(self._database, erasure, after, tables.BATCH):
            after = found[-1][0]
            own = [digest for digest, is_shared in found if not is_shared]
            busy = await under_way(self._database, erasure.tenant_id, own)
            gone = await self._remove(erasure.tenant_id, [digest for digest in own if digest not in busy])
            shared = [digest for digest, is_shared in found if is_shared]
            counts["artifacts"] = counts.get("artifacts", 0) + len(gone)
            counts["artifacts_of_others_too"] = counts.get("artifacts_of_others_too", 0) + len(shared)
            forgotten = [digest for digest, _ in found] if last else [*gone, *shared]
            await tables.forget_references(self._database, erasure, forgotten)
        if last:
            await tables.forget_unopened(self._database, erasure)
        await tables.note(self._database, erasure, counts=counts)

    async def _complete(self, erasure: Erasure) -> None:
        """The certificate and the fact of it, once, whoever else is at the same point."""
        now = clock.now()
        text = certificate(erasure, erasure.counts, now, self._keys)
        fact = ErasureCertified(
            request_id=erasure.id,
            subject=erasure.subject_id,
            counts=erasure.counts,
            certificate_digest=f"sha256:{digest_of(text.encode()).hex()}",
        )
        async with ControlPlane(self._database).change(_author(erasure)) as change:
            if await tables.note_once(change, erasure, "completed_at", now, certificate=text):
                await change.record(erasure_stream(erasure.id), 1 if erasure.key_id is None else 2, fact)


def _author(erasure: Erasure) -> Author:
    return Author(erasure.tenant_id, "system", "erasure", _named(erasure, "erased"))


def _named(erasure: Erasure, what: str) -> UUID:
    return derived_uuid(erasure.id, "erasure", what)
