"""What `codeagent audit restored` does: it tells what a restored log lacks of what was signed, and states that it goes
on without."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from codeagent.cli.databases import command_database
from codeagent.cli.operate import FAILED, guarded, load_settings, say
from codeagent.cli.secrets import open_secrets
from codeagent.cli.transparency import SIGNING_KEY, signing_keys
from codeagent.cli.verifying import QUERY_SECONDS, kept_elsewhere
from codeagent.clock import new_uuid
from codeagent.errors import InvalidInput, Unavailable
from codeagent.eventlog.database import Database
from codeagent.eventlog.facts import Author, ControlPlane
from codeagent.messages.ids import INSTALLATION, log_stream
from codeagent.messages.log_events import LogRestored
from codeagent.settings import Misconfigured, Problem, Settings
from codeagent.settings.about import variable
from codeagent.transparency.findings import Discrepancy
from codeagent.transparency.keys import LogKeys
from codeagent.transparency.restores import Shortfall, shortfall_in
from codeagent.transparency.sealer import Sealer
from codeagent.transparency.verification import LogVerification
from codeagent.transparency.witnesses import Found, Witness

SHORTER = 3
"""Exit status: nothing was stated, and something was signed that the log does not have."""
_PATIENCE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """`kept` and `signed` are the numbers that the operator states, None to be told them only."""

    kept: int | None
    signed: int | None
    anchors: Path | None
    checkpoints: Sequence[Path]


def state_restore(data_dir: Path, wanted: Wanted) -> int:
    """Returns the exit status."""

    async def stated() -> int:
        settings = load_settings(data_dir)
        keys = await _signing_keys(settings)
        kept = await kept_elsewhere(settings, keys, wanted.anchors, wanted.checkpoints, from_topic=True)
        async with command_database(
            settings, name="codeagent-restored", connections=2, timeout_seconds=QUERY_SECONDS
        ) as database:
            missing, problems = await _examined(database, keys, kept)
            if problems:
                say("nothing is stated: what the log still has does not hold")
                return FAILED
            if missing is None:
                say("the log has all that was signed, as far as it was kept")
                return 0
            return await _state(database, keys, missing, wanted)

    return guarded(stated())


async def _signing_keys(settings: Settings) -> LogKeys:
    """Raises `Misconfigured`."""
    secrets = await open_secrets("", settings, (SIGNING_KEY,))
    await secrets.stop()
    if SIGNING_KEY not in secrets:
        raise Misconfigured([Problem(variable(SIGNING_KEY), "is not set", "a statement is signed with the log's key")])
    return signing_keys(secrets.get(SIGNING_KEY))


async def _examined(database: Database, keys: LogKeys, kept: Sequence[Found]) -> tuple[Shortfall | None, int]:
    """What is lacking, and how many problems there are beside that. What vouches for nothing is told and is none: else
    one who can write there could keep a log from going on. Raises `ProofRejected`."""
    for each in kept:
        if isinstance(each, Discrepancy):
            say(f"passed by: {each}")
    believed = [each for each in kept if isinstance(each, Witness)]
    async with database.transaction() as connection:
        await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        missing = await shortfall_in(connection, keys, believed)
        stated = None if missing is None else missing.stated
        problems = 0
        async for finding in LogVerification(connection, keys, believed, stated=stated).findings():
            problems += 1
            say(f"FAILED {finding}")
    return missing, problems


async def _state(database: Database, keys: LogKeys, missing: Shortfall, wanted: Wanted) -> int:
    cut = missing.cut
    words = f"--kept {cut.kept} --signed {cut.signed}"
    told = f"SHORTER: entries {cut.kept} to {cut.signed - 1} were signed, and are not in the log"
    if wanted.kept is None and wanted.signed is None:
        say(f"{told}. If it was restored, and you give them up: codeagent audit restored {words}")
        return SHORTER
    if (wanted.kept, wanted.signed) != (cut.kept, cut.signed):
        raise InvalidInput(f"that is not what is lacking, which is {words}")
    author = Author(INSTALLATION, "system", "operator", new_uuid())
    async with ControlPlane(database).change(author) as change:
        fact = LogRestored(kept=cut.kept, signed=cut.signed, root=cut.root.hex())
        await change.append(log_stream(str(new_uuid())), fact)
    sealer = Sealer(database, keys, seen=missing.newest)
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while not await sealer.state(missing.stated):
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise Unavailable("nothing could be sealed: a transaction is open, or a relay seals. Try again") from None
    say(f"stated: {cut.signed} entries were signed, and the log goes on from {cut.kept} of them")
    return 0
