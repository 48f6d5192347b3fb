"""The edge's API from the client's side: submit, follow across drops, fetch. Synchronous, for the terminal."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from codeagent.cli import patience
from codeagent.cli.connection import Connection

TERMINAL = frozenset({"run.completed", "run.failed", "run.canceled", "run.rejected"})
LONGEST_WAIT_SECONDS = 10.0
ANSWER_SECONDS = 10
"""How long the server may take to say whether an answer to an approval counts."""


class ApiError(Exception):
    """An answer that is not a success: its stable code and what it says. `retry_after` is in seconds."""

    def __init__(self, status: int, code: str, detail: str, *, retry_after: float = 0.0) -> None:
        later = f", again in {math.ceil(retry_after)} s" if retry_after > patience.LONGEST_PAUSE_SECONDS else ""
        super().__init__(f"{detail} ({code}{later})")
        self.status = status
        self.code = code
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One Server-Sent Event. `id` is None for what is only live."""

    name: str
    data: dict[str, Any]
    id: int | None


class Client:
    """One connection pool to one edge."""

    def __init__(self, connection: Connection) -> None:
        self._http = httpx2.Client(
            base_url=connection.url,
            headers={"Authorization": f"Bearer {connection.api_key}", "User-Agent": "codeagent-cli"},
            timeout=httpx2.Timeout(30.0, read=60.0),
            trust_env=False,
        )

    def call(
        self, method: str, path: str, body: dict[str, Any] | None = None, headers: dict[str, str] | None = None
    ) -> dict[str, Any]:
        """One request, asked once. Raises `ApiError`."""
        try:
            return _checked(self._http.request(method, path, json=body, headers=headers))
        except httpx2.TransportError as error:
            raise ApiError(0, "unreachable", f"the server does not answer: {error}") from error

    def upload(self, archive: Path) -> str:
        """Uploads a source archive; returns its digest."""

        def send() -> httpx2.Response:
            with archive.open("rb") as file:
                return self._http.post("/v1/artifacts", content=file, headers={"Content-Type": "application/gzip"})

        return str(_checked(_patiently(send))["digest"])

    def submit(self, body: dict[str, Any], key: str) -> dict[str, Any]:
        """Starts a run; the same key starts it once, so that a lost answer is simply asked for again."""
        return self.make("/v1/runs", body, key)

    def make(self, path: str, body: dict[str, Any], key: str) -> dict[str, Any]:
        """Makes what a list at `path` has; the same key makes it once."""
        headers = {"Idempotency-Key": f'"{key}"'}
        return _checked(_patiently(lambda: self._http.post(path, json=body, headers=headers)))

    def items(self, path: str) -> Iterator[dict[str, Any]]:
        """Everything in the list at `path`, page by page."""
        more = f"{path}{'&' if '?' in path else '?'}limit=200"
        page = self.get(more)
        yield from page["items"]
        while page["next_cursor"] is not None:
            page = self.get(f"{more}&cursor={page['next_cursor']}")
            yield from page["items"]

    def get(self, path: str) -> dict[str, Any]:
        return _checked(self._http.get(path))

    def run(self, run_id: str) -> dict[str, Any]:
        return _checked(_patiently(lambda: self._http.get(f"/v1/runs/{run_id}")))

    def cancel(self, run_id: str) -> None:
        """Repeats are one order."""
        _checked(_patiently(lambda: self._http.post(f"/v1/runs/{run_id}/cancel", json={})))

    def runs(self, status: str) -> list[dict[str, Any]]:
        """The newest runs of a status, at most 200."""
        return list(_checked(self._http.get("/v1/runs", params={"status": status, "limit": 200}))["items"])

    def approvals(self, run_id: str) -> list[dict[str, Any]]:
        """What a run has asked, newest first, at most 200."""
        return list(_checked(self._http.get(f"/v1/runs/{run_id}/approvals", params={"limit": 200}))["items"])

    def approval(self, run_id: str, approval_id: str) -> tuple[dict[str, Any], str]:
        """One approval, and the ETag that an answer to it has to name."""
        answer = self._http.get(f"/v1/runs/{run_id}/approvals/{approval_id}")
        return _checked(answer), answer.headers.get("etag", "")

    def answer(self, run_id: str, approval_id: str, etag: str, body: dict[str, str], key: str) -> dict[str, Any]:
        """Answers what a run asks, on its state as `etag` names it. The approval, with this answer once it counts;
        raises `ApiError` when another came first."""
        headers = {"Idempotency-Key": f'"{key}"', "If-Match": etag, "Prefer": f"wait={ANSWER_SECONDS}"}
        path = f"/v1/runs/{run_id}/approvals/{approval_id}"
        return _checked(_patiently(lambda: self._http.post(path, json=body, headers=headers)))

    def artifact(self, digest: str) -> bytes:
        answer = _patiently(lambda: self._http.get(f"/v1/artifacts/{digest}"))
        if answer.status_code != 200:
            _checked(answer)
        return answer.content

    def recorded(self, run_id: str) -> Iterator[dict[str, Any]]:
        """Every event that a run has so far, page by page."""
        after: int | None = 0
        while after is not None:
            path = f"/v1/runs/{run_id}/events?limit=500&after={after}"
            page = _checked(_patiently(lambda path=path: self._http.get(path)))  # type: ignore[misc]  # bound at once
            yield from page["items"]
            after = page["next_after"]

    def follow(self, run_id: str) -> Iterator[ServerEvent]:
        """A run's events to its end, each durable one once, whatever drops in between."""
        newest, wait, ended = 0, 0.5, False
        while not ended:
            try:
                for event in self._stream(run_id, newest):
                    wait = 0.5
                    if event.id is not None:
                        if event.id <= newest:
                            continue
                        newest = event.id
                    yield event
                    ended = ended or event.name in TERMINAL
            except httpx2.TransportError:
                pass
            except ApiError as error:
                if error.status not in {429, 503} or error.retry_after > patience.LONGEST_PAUSE_SECONDS:
                    raise
                wait = max(wait, error.retry_after)
            if not ended:
                time.sleep(patience.jittered(wait))
                wait = min(wait * 2, LONGEST_WAIT_SECONDS)

    def _stream(self, run_id: str, newest: int) -> Iterator[ServerEvent]:
        headers = {"Accept": "text/event-stream", "Last-Event-ID": str(newest)}
        with self._http.stream("GET", f"/v1/runs/{run_id}/events", headers=headers) as answer:
            if answer.status_code != 200:
                answer.read()
                _checked(answer)
                return
            yield from _parse(answer.iter_lines())

    def audit(self, wanted: dict[str, str], most: int) -> Iterator[dict[str, Any]]:
        """Lines of the audit, newest first."""
        cursor: dict[str, str] = {}
        while most > 0:
            size = min(most, 200)
            page = _checked(self._http.get("/v1/audit/events", params={**wanted, **cursor, "limit": str(size)}))
            yield from page["items"]
            most -= size
            if page["next_cursor"] is None:
                return
            cursor = {"cursor": page["next_cursor"]}

    def audit_proof(self, event_id: str) -> str:
        """The proof that an event is in the log, as a text."""
        return self.download(f"/v1/audit/events/{event_id}/proof").decode()

    def download(self, path: str) -> bytes:
        """What is no JSON of ours, as it comes. Raises `ApiError`."""
        try:
            answer = self._http.get(path)
        except httpx2.TransportError as error:
            raise ApiError(0, "unreachable", f"the server does not answer: {error}") from error
        if answer.status_code != 200:
            _checked(answer)
        return answer.content

    def audit_export(self, wanted: dict[str, str]) -> Iterator[bytes]:
        """Lines of the export, each with its end. Ends early, without its last line, where the connection does."""
        with self._http.stream("GET", "/v1/audit/export", params=wanted) as answer:
            if answer.status_code != 200:
                answer.read()
                _checked(answer)
            rest = b""
            try:
                for piece in answer.iter_bytes():
                    *whole, rest = (rest + piece).split(b"\n")
                    yield from (line + b"\n" for line in whole)
            except httpx2.TransportError:
                return

    def close(self) -> None:
        self._http.close()


def _patiently(send: Callable[[], httpx2.Response]) -> httpx2.Response:
    """The answer to a request that may be repeated. Raises `ApiError` where there is none."""
    try:
        return patience.patiently(send)
    except httpx2.TransportError as error:
        raise ApiError(0, "unreachable", f"the server does not answer: {error}") from error


def _parse(lines: Iterator[str]) -> Iterator[ServerEvent]:
    name, event_id = "message", None
    data: list[str] = []
    for line in lines:
        if line == "":
            if data:
                yield ServerEvent(name, json.loads("\n".join(data)), event_id)
            name, data, event_id = "message", [], None
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            name = value
        elif field == "data":
            data.append(value)
        elif field == "id" and value.isdecimal():
            event_id = int(value)


def _checked(answer: httpx2.Response) -> dict[str, Any]:
    if answer.is_success:
        return dict(answer.json()) if answer.content else {}
    try:
        problem = answer.json()
    except ValueError:
        problem = {}
    detail = str(problem.get("detail", answer.reason_phrase))
    wrong = [(item["pointer"], item["detail"]) for item in problem.get("errors", [])]
    fields = "; ".join(pointer if said == detail else f"{pointer}: {said}" for pointer, said in wrong)
    raise ApiError(
        answer.status_code,
        str(problem.get("code", "unknown")),
        f"{detail} {fields}".strip() if fields else detail,
        retry_after=patience.retry_after(answer) or 0.0,
    )
