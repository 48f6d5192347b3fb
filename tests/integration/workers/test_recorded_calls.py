"""What models are asked and reply, kept where the operator wants it kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from codeagent.artifacts.store import LocalArtifactStore
from codeagent.eventlog.database import Database
from codeagent.eventlog.log import EventLog
from codeagent.messages.calls import CallEnded
from codeagent.messages.envelope import Message
from codeagent.projections.artifact_references import ArtifactReferences, named_among
from codeagent.providers.protocol import ProviderError
from tests.integration.projections.logs import caught_up
from tests.integration.workers.system import TENANT, Bench
from tests.integration.workers.test_model_calls import SHELL, Providers, asked, failed, fine, told, worker_of
from tests.integration.workers.test_windows import until


@pytest.fixture
def bench(database: Database) -> Bench:
    return Bench(database)


async def ended(bench: Bench, command: Message, providers: Providers, folder: Path, *recording: bool) -> CallEnded:
    """The fact of a call that each of these workers has had once, at most."""
    for record_calls in recording:
        worker = await worker_of(bench, providers, folder, record_calls=record_calls)
        await worker.handle(command)
        await worker.drain(5)
    await until(lambda: bool(bench.mailbox.answers))
    *_, fact = await told(bench, command)
    assert isinstance(fact, CallEnded)
    return fact


async def read(folder: Path, digest: str, tenant_id: str = TENANT) -> Any:
    return json.loads(await LocalArtifactStore(folder).read(tenant_id, digest))


async def test_a_recorded_call_is_whole_under_its_digests_and_stays_as_long_as_its_fact(
    bench: Bench, tmp_path: Path
) -> None:
    fact = await ended(bench, await asked(bench), Providers(test=[fine("0.10")], other=[]), tmp_path, True)
    assert fact.recorded
    question = await read(tmp_path, fact.request_digest)
    assert (question["model"], question["max_output_tokens"] > 0) == ("m", True)
    assert [message["role"] for message in question["messages"]] == ["system", "user"]
    assert "shell" in [tool["name"] for tool in question["tools"]]
    assert await read(tmp_path, fact.reply_digest) == SHELL.model_dump(mode="json")
    await caught_up(bench.database, ArtifactReferences(bench.database, EventLog(bench.database)))
    digests = {fact.request_digest, fact.reply_digest}
    assert await named_among(bench.database, TENANT, sorted(digests)) == digests
    assert await named_among(bench.database, "ten_other", sorted(digests)) == set()


async def test_a_call_that_failed_has_what_was_asked(bench: Bench, tmp_path: Path) -> None:
    refused = ProviderError("no", reason="invalid_request", retryable=False)
    fact = await ended(bench, await asked(bench), Providers(test=[refused], other=[refused]), tmp_path, True)
    assert (fact.recorded, fact.reply_digest) == (True, "")
    assert (await read(tmp_path, fact.request_digest))["messages"]


async def test_without_the_setting_nothing_is_kept(bench: Bench, tmp_path: Path) -> None:
    fact = await ended(bench, await asked(bench), Providers(test=[fine("0.10")], other=[]), tmp_path, False)
    assert fact.recorded is None
    store = LocalArtifactStore(tmp_path)
    assert [await store.exists(TENANT, digest) for digest in (fact.request_digest, fact.reply_digest)] == [False] * 2


async def test_a_call_is_recorded_if_the_worker_that_ended_it_records(bench: Bench, tmp_path: Path) -> None:
    providers = Providers(test=[failed("timeout", "0.10"), fine("0.30")], other=[failed("overloaded", "0.20")])
    command = await asked(bench)
    recording = await worker_of(bench, providers, tmp_path, record_calls=True)
    await recording.handle(command)
    await until(lambda: not providers.left["other"])
    await recording.drain(1)
    await bench.database.write("UPDATE effects SET due_at = clock_timestamp() WHERE kind = 'provider'")  # has rested
    fact = await ended(bench, command, providers, tmp_path, False)
    assert (fact.cost_usd is not None, fact.recorded) == (True, None)
    assert not await LocalArtifactStore(tmp_path).exists(TENANT, fact.reply_digest)
