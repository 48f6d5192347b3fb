"""A run that hands its task to another agent, on the whole system: what the child repairs is in the parent's patch."""

from __future__ import annotations

from typing import Any

from codeagent.cli.client import Client
from codeagent.clock import new_uuid
from tests.acceptance.checks import Watched, added_lines, ledgers, listed, problems_in_log, upload
from tests.acceptance.conversations import BROKEN, tool
from tests.acceptance.system import UpSystem, client
from tests.servers.model_server import ModelServer
from tests.servers.script import Reply, Script


def leads() -> Script:
    """Hands the whole task to the only other agent, then submits."""
    task = "Make the tests pass."
    return Script(
        [
            Reply(calls=(tool("delegate", 0, task=task, budget={"max_steps": 10}),)),
            Reply(calls=(tool("submit", 1, summary="Another one has repaired it."),)),
        ],
        "turn",
    )


def post(api: Client, path: str, body: dict[str, Any]) -> dict[str, Any]:
    return api.call("POST", path, body, {"Idempotency-Key": f'"{new_uuid()}"'})


def test_a_parent_completes_with_what_its_child_has_changed(up_system: UpSystem, model_server: ModelServer) -> None:
    model_server.script = leads()
    api = client(up_system)
    post(api, "/v1/agents", {"name": "lead"})
    post(api, "/v1/agents/lead/versions", {"model": "local/scripted", "delegates": ["coder"]})
    source = {"kind": "archive", "digest": upload(api, BROKEN, up_system.data_dir.parent)}
    limits = {"max_steps": 30}
    run = api.submit({"task": "Repair it.", "source": source, "agent": "lead@1", "limits": limits}, str(new_uuid()))
    seen = Watched(str(run["id"]))
    seen.follow(api)
    assert seen.is_contiguous_to_its_end()
    assert seen.names[-1] == "run.completed"
    assert [name for name in seen.names if name.startswith("subagent.")] == ["subagent.started", "subagent.completed"]

    [child] = listed(api, f"/v1/runs?parent={run['id']}", "completed")
    assert (child["agent"], child["status"], child["parent_run_id"]) == ("coder", "completed", run["id"])
    whole = api.run(child["id"])
    assert whole["limits"]["max_steps"] == 10
    parent = api.run(str(run["id"]))
    [patch] = parent["artifacts"]
    assert added_lines(api.artifact(patch["digest"]).decode()) == ["    return a + b"]
    assert [artifact["digest"] for artifact in whole["artifacts"]] == [patch["digest"]]
    assert (parent["steps"], parent["parent_run_id"]) == (2, None)

    [told] = [event for event in api.recorded(parent["id"]) if event["type"] == "io.codeagent.subagent.completed.v1"]
    assert (told["data"]["child_run_id"], told["data"]["steps"]) == (child["id"], whole["steps"])
    for run_id in (parent["id"], child["id"]):
        assert problems_in_log(up_system.database_url, run_id) == []
    assert ledgers(up_system.database_url) == {"effects": 0, "outbox": 0}
