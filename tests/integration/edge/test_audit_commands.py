"""The audit tells which commands a run has run, and not what they have written."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from uuid import UUID

from codeagent import clock
from codeagent.eventlog.database import Database
from codeagent.eventlog.effects import Claim, EffectsLedger, OutboxRow, Verdict
from codeagent.messages.commands import ExecuteOperation
from codeagent.messages.conversation import ToolCall
from codeagent.messages.envelope import Envelope
from codeagent.messages.ids import exec_stream
from codeagent.messages.values import CallTool
from codeagent.sandboxes import protocol
from codeagent.sandboxes.protocol import Connection, ExecRecord, IsolationLevel, Limits, ProbeReport, Reason
from codeagent.workers import exec_facts
from codeagent.workers.exec_facts import Done, Told
from codeagent.workers.toolbox import ToolOutcome
from tests.integration.edge.auditing import acts, lines
from tests.integration.edge.gateway import MINE, Edge

RUN = "run_9"


async def command_of_a_run(url: str) -> UUID:
    """What a worker records of `cat canary`; the effect's id."""
    effect_id = clock.new_uuid()
    call = CallTool(call=ToolCall(id="c", name="shell", arguments="{}"), timeout_seconds=1)
    command = ExecuteOperation(effect_id=effect_id, run_id=RUN, base=None, checkpoint="", operation=call)
    report = ProbeReport("bwrap", "1", IsolationLevel.KERNEL, {})
    words, hosts = ("/bin/bash", "-c", "cat canary"), ("pypi.org:443",)
    began = exec_facts.began(command, 1, report, Limits(), words, egress=hosts)
    record = ExecRecord(Reason.EXIT, 1, None, b"canary\n", b"", 7, 0, (), 0.1, 0.1, 1, "bwrap", IsolationLevel.KERNEL)
    record = replace(record, egress=(Connection("pypi.org", 443, protocol.Verdict.ALLOWED, 1, 2),))
    done = Done(ToolOutcome("canary", "exit", 1, record=record), stdout=exec_facts.output_told(record.stdout, 7))
    ended = exec_facts.done(Told(command, 1, "bwrap", 2, 0.1), done, Limits())
    cause = Envelope(effect_id, command.NAME, 1, "/test", clock.now(), MINE, RUN, clock.new_uuid())
    database, lease = Database(url, connections=1), timedelta(seconds=30)
    ledger = EffectsLedger(
        database, kind="sandbox", owner="a", lease=lease, durable_claims=True, new_token=clock.new_uuid
    )
    claim = Claim(effect_id, clock.new_uuid(), 1, cancel_requested=False)
    answer = OutboxRow(clock.new_uuid(), "t", cause, ended.answer)
    assert await ledger.record(claim, ended.facts(cause, began, None), answer) is Verdict.GONE
    await database.close()
    return effect_id


async def test_commands_are_found_by_their_run_without_what_they_have_written(
    edge: Edge, newest_database_url: str
) -> None:
    effect_id = await command_of_a_run(newest_database_url)
    ended, started = await lines(edge, newest_database_url, edge.keys.owner, resource_kind="exec", resource_id=RUN)
    assert acts([ended, started]) == ["sandbox.exec.ended", "sandbox.exec.started"]
    for line in (ended, started):
        assert (line["authtype"], line["authid"], line["outcome"]) == ("system", RUN, "success")
        assert line["time"]
    assert started["data"]["argv"] == ["/bin/bash", "-c", "cat canary"]
    assert started["data"]["egress"] == ["pypi.org:443"]
    [seen] = ended["data"]["egress"]
    assert (seen["host"], seen["port"], seen["verdict"]) == ("pypi.org", 443, "allowed")
    assert (ended["data"]["exit_code"], ended["data"]["stdout"]["seen_bytes"]) == (1, 7)
    assert "excerpt" not in ended["data"]["stdout"]
    path = f"/v1/audit/verify?stream_id={exec_stream(effect_id)}"
    verified = (await edge.call(edge.keys.owner, "GET", path)).json()
    assert (verified["verified"], verified["events"]) == (True, 2)


async def test_another_tenant_finds_none_of_them(edge: Edge, newest_database_url: str) -> None:
    await command_of_a_run(newest_database_url)
    assert await lines(edge, newest_database_url, edge.keys.stranger, resource_kind="exec") == []
