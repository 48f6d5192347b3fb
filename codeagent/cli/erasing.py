"""Erasures and the retention of runs' content as parts of the relay."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta

from codeagent.artifacts.blobs import BlobFiles
from codeagent.artifacts.threads import in_thread
from codeagent.broker.topics import RUN_COMMANDS
from codeagent.cli.parts import Parts
from codeagent.cli.transparency import SIGNING_KEY, signing_keys
from codeagent.privacy.content_erasure import ContentErasure
from codeagent.privacy.run_retention import RunRetention
from codeagent.privacy.stopping import RestrictedRuns
from codeagent.relay.breaches import BreachClock
from codeagent.relay.erasures import Erasures
from codeagent.relay.restrictions import Restrictions
from codeagent.relay.retention import Forget
from codeagent.telemetry.logs import get_logger

log = get_logger(__name__)

TOUCHED_SECONDS = 8.0
"""Less than an erasure waits for caches to pass, so that what its own runs have stored last is older."""


def retire_runs(parts: Parts) -> dict[str, Forget]:
    """What forgets the content of runs, where the operator wants that."""
    days = parts.settings.run_content_days
    return {} if days is None else {"run_content": RunRetention(parts.database, timedelta(days=days)).forget}


def _stop_restricted(parts: Parts) -> None:
    restrictions = Restrictions(RestrictedRuns(parts.database, topic=RUN_COMMANDS))
    parts.process.start.append(restrictions.start)
    parts.process.stop.insert(0, restrictions.stop)


def erase(parts: Parts) -> None:
    """Adds erasures to a process, where there is a key to sign certificates with, what ends the runs of those who are
    restricted, and the clock of breaches."""
    clock = BreachClock(parts.database)
    parts.process.start.append(clock.start)
    parts.process.stop.insert(0, clock.stop)
    _stop_restricted(parts)
    if SIGNING_KEY not in parts.secrets:
        log.warning("erasures.off", reason="there is no key to sign certificates with")
        return
    files = BlobFiles(parts.settings.artifacts_dir)

    async def remove(tenant_id: str, digests: Sequence[str]) -> Sequence[str]:
        # Somebody who has just stored or asked for the same bytes is about to name them: the sweep sees to those.
        latest = time.time() - TOUCHED_SECONDS
        return [digest for digest in digests if await in_thread(files.remove_if_older, tenant_id, digest, latest)]

    keys = signing_keys(parts.secrets.get(SIGNING_KEY))
    content = ContentErasure(parts.database, remove, keys, topic=RUN_COMMANDS)
    erasures = Erasures(parts.database, content)
    parts.process.start.append(erasures.start)
    parts.process.stop.insert(0, erasures.stop)

    async def changed() -> None:
        content.use(signing_keys(parts.secrets.get(SIGNING_KEY)))

    parts.secrets.watch(SIGNING_KEY, changed)
