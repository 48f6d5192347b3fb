"""A process does not begin with a store of keys that is not the log's."""

from __future__ import annotations

from dataclasses import replace

import pytest

from codeagent.cli.subject_keys import check_keys
from codeagent.eventlog.database import Database
from codeagent.settings import Misconfigured
from codeagent.subjects.keys import SubjectKeys
from tests.integration.eventlog.steps import TENANT, cause, commit_step, new_run, prepared, step, submitted
from tests.integration.subject_keys import keys_in_memory


async def test_an_empty_store_or_none_is_refused_once_there_is_sealed_content(newest_database_url: str) -> None:
    right = keys_in_memory()
    database = Database(newest_database_url, connections=1, subjects=right)
    await check_keys(database)
    run_id, key = new_run(), await right.of(TENANT, "usr_a")
    made = step(run_id, 0, tenant=TENANT)
    await commit_step(database, replace(made, events=prepared(run_id, 0, [submitted(run_id)], cause(run_id), key)))
    await check_keys(database)
    for other, said in ((keys_in_memory(), "does not know"), (SubjectKeys(), "is not set")):
        stranger = Database(newest_database_url, connections=1, subjects=other)
        with pytest.raises(Misconfigured, match=said):
            await check_keys(stranger)
        await stranger.close()
    await database.close()


async def test_a_database_that_is_away_is_no_reason(newest_database_url: str) -> None:
    await check_keys(Database("postgresql://nobody@127.0.0.1:1/none", subjects=keys_in_memory()))
