"""What happens to an edge's guards stands in its log, in one line each, and without what was shown to it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from codeagent.edge.refused_log import RefusedLog
from codeagent.edge.traffic.policy import Rate
from codeagent.identity.keys import new_key
from tests.security.attacked import UNLIMITED, Target, attacked_edge


async def test_a_missing_scope_is_logged_with_who_lacks_it(target: Target) -> None:
    async with target.client(target.edge.keys.powerless) as http:
        with capture_logs() as lines:
            assert (await http.get("/v1/runs")).status_code == 403
    [line] = [line for line in lines if line["event"] == "access.denied"]
    assert (line["caller"], line["key_id"], line["missing"]) == ("usr_powerless", "key_usr_powerless", ["runs:read"])
    assert line["log_level"] == "warning"


@pytest.mark.parametrize(("shown", "reason"), [(True, "unknown_credential"), (False, "no_credential")])
async def test_a_refused_credential_is_logged_without_it(target: Target, shown: bool, reason: str) -> None:
    key = new_key()
    async with target.client(key) as http:
        if not shown:
            del http.headers["Authorization"]
        with capture_logs() as lines:
            assert (await http.get("/v1/runs")).status_code == 401
    [line] = [line for line in lines if line["event"] == "credential.refused"]
    assert line["reason"] == reason
    assert key[4:] not in str(lines)


async def test_refused_input_is_logged_without_what_was_sent(target: Target) -> None:
    async with target.client(target.edge.keys.owner) as http:
        with capture_logs() as lines:
            for body in ({"name": "hunter2", "scopes": ["root"]}, {"url": "hunter2", "event_types": ["*"]}):
                path = "/v1/api-keys" if "scopes" in body else "/v1/webhooks"
                assert (await http.post(path, json=body, headers={"Idempotency-Key": "k"})).status_code == 422
    found = [(line["route"], line["codes"]) for line in lines if line["event"] == "input.refused"]
    assert found == [("/v1/api-keys", "enum"), ("/v1/webhooks", "unsupported_webhook_url")]
    assert "hunter2" not in str(lines)


async def test_a_limit_that_is_reached_is_logged_and_a_flood_takes_few_lines(
    newest_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = replace(UNLIMITED, anonymous=Rate(1, 60))
    async with (
        attacked_edge(newest_database_url, tmp_path, monkeypatch, traffic=few) as target,
        target.client(new_key()) as http,
    ):
        with capture_logs() as lines:
            for _ in range(30):
                answer = await http.get("/v1/runs")
    assert answer.status_code == 429
    found = [line for line in lines if line["event"] == "limit.reached"]
    assert 1 <= len(found) < 10
    assert (found[0]["route"], found[0]["policy"]) == ("/v1/runs", "anonymous")


def test_a_line_says_how_many_refusals_it_stands_for() -> None:
    at = [0.0]
    refused = RefusedLog(lambda: at[0])
    with capture_logs() as lines:
        for moment in (0.0, 0.1, 0.9, 1.0, 1.1):
            at[0] = moment
            refused.note("limit.reached", route="/v1/runs", policy="read")
        refused.note("limit.reached", route="/v1/me", policy="read")
    assert [(line["route"], line["times"]) for line in lines] == [("/v1/runs", 1), ("/v1/runs", 3), ("/v1/me", 1)]


async def test_an_unexpected_error_is_logged_and_not_told(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object, **__: object) -> object:
        raise RuntimeError("hunter2")

    monkeypatch.setattr("codeagent.edge.runs.list_runs", broken)
    async with target.client(target.edge.keys.owner) as http:
        with capture_logs() as lines:
            answer = await http.get("/v1/runs")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert "hunter2" not in answer.text
    [line] = [line for line in lines if line["event"] == "request.crashed"]
    assert (line["error"], line["route"], str(line["exc_info"])) == ("RuntimeError", "/v1/runs", "hunter2")


def test_what_is_logged_cannot_begin_a_line_of_its_own() -> None:
    program = """
import sys
from codeagent.telemetry.logs import configure_logs, get_logger
configure_logs("test")
get_logger("x").info("request.refused", detail=sys.argv[1])
import logging; logging.getLogger("library").warning("refused %s", sys.argv[1])
"""
    forged = 'x"}\r\n{"event": "access.granted"}\u2028\x1b[2J'
    done = subprocess.run([sys.executable, "-c", program, forged], capture_output=True, check=True)
    first, second = (json.loads(line) for line in done.stderr.strip().split(b"\n"))
    assert (first["event"], first["detail"]) == ("request.refused", forged)
    assert second["event"] == f"refused {forged}"
    assert b"\x1b" not in done.stderr
