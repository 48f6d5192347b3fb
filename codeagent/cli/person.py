"""Requests of persons as a client of the running system carries them through."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from codeagent.cli.client import ApiError, Client
from codeagent.cli.operate import FAILED, guarded, load_settings, say
from codeagent.cli.verifying import find_keys
from codeagent.clock import new_uuid
from codeagent.privacy.certificate import read_certificate
from codeagent.transparency.notes import NoteRejected

_REQUESTS = "/v1/privacy/requests"
_LOOK_SECONDS = 1.0


def taken_in(client: Client, kind: str, subject: str, note: str) -> dict[str, Any]:
    """The subject's request of that kind that is at work: the newest that has not ended, else a new one. Raises
    `ApiError`."""
    known = (item for item in client.items(f"{_REQUESTS}?subject={subject}") if item["kind"] == kind)
    request = next((item for item in known if item["status"] in {"received", "in_progress"}), None)
    if request is None:
        body = {"kind": kind, "subject": subject, "note": note}
        request = client.make(_REQUESTS, body, str(new_uuid()))
    return _moved(client, request, "in_progress") if request["status"] == "received" else request


def _moved(client: Client, request: dict[str, Any], status: str) -> dict[str, Any]:
    match = {"If-Match": f'"{request["version"]}"'}
    return client.call("PATCH", f"{_REQUESTS}/{request['id']}", {"status": status}, match)


def certified(client: Client, request_id: str, seconds: float) -> str | None:
    """The certificate; None where it is not there in time."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return client.download(f"{_REQUESTS}/{request_id}/certificate").decode()
        except ApiError as error:
            if error.code != "erasure_in_progress":
                raise
        if time.monotonic() >= deadline:
            return None
        time.sleep(_LOOK_SECONDS)


def close(client: Client, request_id: str) -> list[dict[str, Any]]:
    """Completes the request, and returns what keeps it open, if anything does."""
    request = client.get(f"{_REQUESTS}/{request_id}")
    left: list[dict[str, Any]] = request["result"].get("remaining", [])
    if not left and request["status"] == "in_progress":
        _moved(client, request, "completed")
    return left


def show_certificate(data_dir: Path, file: Path, keys: Path | None) -> int:
    """Returns the exit status."""

    text, public = file.read_text(errors="replace"), None if keys is None else keys.read_text()

    async def show() -> int:
        found = await find_keys(load_settings(data_dir), public)
        try:
            told = read_certificate(text, found)
        except NoteRejected as error:
            say(f"FAILED {error}")
            return FAILED
        say(json.dumps(told, indent=2))
        return 0

    return guarded(show())
