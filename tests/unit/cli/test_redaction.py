"""Logs say what happened and never what is secret."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

from codeagent.identity.keys import digest_of_key, new_key, well_formed
from codeagent.telemetry.logs import redact
from codeagent.telemetry.redaction import without_secrets


@pytest.mark.parametrize(
    "event",
    [
        {"api_key": "abc"},
        {"authorization": "Bearer abc"},
        {"database_url": "postgresql://u:secret@h/d"},
        {"note": "connecting to postgresql://u:secret@h/d"},
        {"note": "Authorization: Bearer secret"},
        {"note": f"key {new_key()}"},
        {"note": "sk-secretsecret1234"},
        *({"note": f"{prefix}_AbCdEf-secret-_secret"} for prefix in ("crt", "cac", "cas")),
        {"note": "token was eyJhbGciOiJFUzI1NiJ9.secret.secret"},
    ],
)
def test_secrets_are_blanked_by_name_and_by_look(event: dict[str, str]) -> None:
    [value] = redact(None, "", dict(event)).values()
    assert "secret" not in value
    assert "[redacted]" in value


@pytest.mark.parametrize(
    "command",
    [
        "curl -H 'Authorization: Basic c2VjcmV0OnNlY3JldA==' https://h",
        "curl -H 'X-Api-Key: Zecret' https://h",
        "curl -u bob:Zecret https://h",
        "export AWS_SECRET_ACCESS_KEY=Zecret",
        "mysql --password Zecret",
        "mysql --password='se Zecret'",
        'echo \'{"api_key": "Zecret"}\' > config.json',
        "git push https://bob:Zecret@h/x",
        "gh auth login ghp_ZecretZecret",
        "printf -- '-----BEGIN RSA PRIVATE KEY-----\nZecret\nZecret\n-----END RSA PRIVATE KEY-----'",
    ],
)
def test_secrets_in_a_command_are_blanked_and_what_they_are_for_stays(command: str) -> None:
    seen = without_secrets(command)
    assert "Zecret" not in seen
    assert "c2Vj" not in seen
    assert "[redacted]" in seen
    assert seen.split()[0] == command.split(maxsplit=1)[0]


@pytest.mark.parametrize(
    "command", ["grep -rn token src/", "pytest -q tests/test_auth.py", "git log --author ted", "keyboard = 1"]
)
def test_a_command_without_secrets_stays_as_it_is(command: str) -> None:
    assert without_secrets(command) == command


@pytest.mark.parametrize(
    "piece", ["://a:", "-----BEGIN PRIVATE KEY-----", "-", "token", "-u a:", "x-", "'", "eyJaaaaaa", "--token ", "a"]
)
def test_no_text_makes_it_slow(piece: str) -> None:
    began = time.process_time()
    without_secrets(piece * (10_000 // len(piece)))
    assert time.process_time() - began < 1.0


def test_the_rest_is_left_alone() -> None:
    event = {"event": "run.ended", "run_id": "run_01", "count": 3}
    assert redact(None, "", dict(event)) == event


def test_a_log_line_is_one_json_object_with_its_trace() -> None:
    program = """
from codeagent.telemetry.logs import configure_logs, get_logger
from codeagent.telemetry.traces import configure_traces, span
configure_logs("test"); configure_traces("test", "1", None, 1.0)
with span("work"):
    get_logger("x").info("thing.done", run_id="run_1")
import logging; logging.getLogger("library").warning("password=%s", "hunter2")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    first, second = (json.loads(line) for line in done.stderr.splitlines())
    assert (first["event"], first["service"], first["run_id"]) == ("thing.done", "test", "run_1")
    assert len(first["trace_id"]) == 32
    assert (second["level"], second["event"]) == ("warning", "password=[redacted]")


def test_a_key_proves_itself_and_a_typing_error_does_not() -> None:
    key = new_key()
    assert well_formed(key)
    assert len(digest_of_key(key)) == 64
    for index in range(4, len(key), 7):
        other = "a" if key[index] != "a" else "b"
        assert not well_formed(key[:index] + other + key[index + 1 :])
    for text in ("", "cak_", key[:-1], key + "a", key.replace("cak_", "cax_"), "cak_" + "é" * 36):
        assert not well_formed(text)


def test_a_full_disk_under_the_log_costs_lines_and_nothing_else() -> None:
    program = """
from codeagent.telemetry.logs import configure_logs, get_logger
configure_logs("test")
for number in range(2_000):
    get_logger("x").info("something.happened", number=number, detail="x" * 100)
print("still here")
"""
    with open("/dev/full", "wb") as full:
        done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=full, check=False)
    assert (done.returncode, done.stdout) == (0, b"still here\n")
