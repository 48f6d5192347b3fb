"""A superuser changes the log in every way there is, and the verification calls each by its name."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path

import asyncpg
import pytest

from codeagent.eventlog import migrate
from codeagent.eventlog.database import Database
from codeagent.transparency.findings import Discrepancy
from codeagent.transparency.sealer import Sealer
from codeagent.transparency.verification import LogVerification
from codeagent.transparency.witnesses import kept_witnesses
from tests.integration.transparency.sealed import KEYS, SUBJECT_KEY, append_runs, newest, seal_all
from tests.integration.transparency.tamper.attack import Attack
from tests.integration.transparency.tamper.attacks import ATTACKS
from tests.services.postgres import PostgresCluster

Connection = asyncpg.Connection


async def make_log(url: str, folder: Path) -> None:
    """The log that the attacks are on; its second and fourth checkpoint are kept."""
    database = Database(url, connections=2)
    sealer = Sealer(database, KEYS)
    for number, count in enumerate((5, 3, 290, 4), 1):
        await append_runs(database, count, key=SUBJECT_KEY)
        await seal_all(database, sealer)
        if number % 2 == 0:
            (folder / f"{count}.checkpoint").write_text((await newest(database)).note)
    await append_runs(database, 2, tenant="ten_other", key=SUBJECT_KEY)
    await database.close()


@pytest.fixture(scope="module")
def anchors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("anchors")


@pytest.fixture(scope="module")
def attacked_url(any_postgres: PostgresCluster, anchors: Path) -> Iterator[str]:
    """One log for all attacks: each is taken back."""
    any_postgres.prepare_template(lambda url: asyncio.run(migrate.upgrade(url)))
    url = any_postgres.new_database()
    asyncio.run(make_log(url, anchors))
    yield any_postgres.superuser_url(url.rsplit("/", 1)[1])
    any_postgres.drop_database(url)


async def found(connection: Connection, kept: Sequence[Path] = ()) -> list[Discrepancy]:
    return [finding async for finding in LogVerification(connection, KEYS, list(kept_witnesses(kept, KEYS))).findings()]


async def test_a_log_that_nobody_has_touched_has_nothing_to_be_named(superuser: Connection, anchors: Path) -> None:
    verification = LogVerification(superuser, KEYS, list(kept_witnesses(sorted(anchors.iterdir()), KEYS)))
    assert [str(finding) async for finding in verification.findings()] == []
    assert (verification.entries, verification.checkpoints, verification.waiting) == (302, 6, 2)


def test_there_are_attacks_enough() -> None:
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS) >= 30


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
async def test_an_attack_is_called_by_its_name(superuser: Connection, anchors: Path, attack: Attack) -> None:
    await attack.strike(superuser)
    if attack.anchored:
        assert await found(superuser) == []
    findings = await found(superuser, sorted(anchors.iterdir()) if attack.anchored else ())
    told = "\n".join(str(finding) for finding in findings)
    assert {finding.code for finding in findings} == {code for code, _ in attack.named}, told
    for code, place in attack.named:
        assert [each for each in findings if each.code == code and place in str(each)], told
