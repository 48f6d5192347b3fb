"""What happens to an edge's guards stands in its log, in one line each, and without what was shown to it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from structlog.testing import capture_logs

from codeagent.identity.keys import new_key
from tests.security.attacked import Target


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
