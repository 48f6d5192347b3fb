"""Answers are compressed for those who ask, where that is safe: on the wire, as a client gets them."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator

import pytest
import zstandard
from fastapi import Response

from codeagent.edge.compression import MINIMUM_BYTES
from tests.integration.edge.conftest import Api
from tests.integration.edge.test_api import body
from tests.integration.edge.wire import Answer, Served, serve

pytestmark = pytest.mark.parametrize("durable", [True], indirect=True, ids=["durable"])


@pytest.fixture
async def served(api: Api) -> AsyncIterator[Served]:
    large = b'{"a": "' + b"a" * 2 * MINIMUM_BYTES + b'"}'

    @api.app.get("/v1/test/{kind}")
    async def answer(kind: str) -> Response:
        headers = {"secret": {"Cache-Control": "no-store"}, "tagged": {"ETag": '"1"'}, "weak": {"ETag": 'W/"1"'}}
        media_type = "application/octet-stream" if kind == "bytes" else "application/json"
        content = large[: MINIMUM_BYTES - 1] if kind == "small" else large
        return Response(content, headers=headers.get(kind), media_type=media_type)

    async with serve(api.app) as made:
        yield made


async def get(served: Served, path: str, encodings: str | None, *lines: str) -> Answer:
    asked = [f"GET {path} HTTP/1.1", "Host: edge", *lines]
    if encodings is not None:
        asked.append(f"Accept-Encoding: {encodings}")
    async with served.connection() as connection:
        await connection.send("\r\n".join([*asked, "", ""]).encode())
        return await connection.answer()


ASKED = {
    "gzip": "gzip",
    "br": "br",
    "zstd": "zstd",
    "gzip, deflate, br, zstd": "zstd",
    "zstd;q=0, gzip": "gzip",
}


async def test_the_best_encoding_of_those_asked_for_is_used(served: Served) -> None:
    plain = await get(served, "/v1/test/large", None)
    assert "content-encoding" not in plain.headers
    for encodings, chosen in ASKED.items():
        answer = await get(served, "/v1/test/large", encodings)
        assert answer.headers["content-encoding"] == chosen
        assert "Accept-Encoding" in answer.headers["vary"]
        assert len(answer.body) < len(plain.body) / 10
        if chosen == "gzip":
            assert gzip.decompress(answer.body) == plain.body
        elif chosen == "zstd":
            assert zstandard.ZstdDecompressor().decompress(answer.body, 1 << 20) == plain.body


async def test_what_is_secret_named_by_its_bytes_small_or_no_text_is_left_alone(served: Served) -> None:
    for kind in ("secret", "tagged", "small", "bytes"):
        answer = await get(served, f"/v1/test/{kind}", "gzip, br, zstd")
        assert answer.status == 200
        assert "content-encoding" not in answer.headers, kind
        assert int(answer.headers["content-length"]) == len(answer.body)


async def test_a_weak_tag_does_not_keep_an_answer_from_being_compressed(served: Served) -> None:
    assert (await get(served, "/v1/test/weak", "gzip")).headers["content-encoding"] == "gzip"
    document = await get(served, "/openapi.json", "gzip")
    assert document.headers["content-encoding"] == "gzip"
    again = await get(served, "/openapi.json", "gzip", f"If-None-Match: {document.headers['etag']}")
    assert (again.status, again.body) == (304, b"")


async def test_a_run_is_sent_as_its_tag_says(served: Served, api: Api) -> None:
    order = await body(api, task="x" * 5_000)
    run_id = (await api.submit(order)).json()["id"]
    answer = await get(served, f"/v1/runs/{run_id}", "gzip", f"X-API-Key: {api.key}")
    assert answer.headers["etag"].startswith('"')
    assert "content-encoding" not in answer.headers


async def test_events_are_never_held_back_by_a_compressor(served: Served, api: Api) -> None:
    run_id = (await api.submit(await body(api))).json()["id"]
    lines = [f"GET /v1/runs/{run_id}/events HTTP/1.1", "Host: edge", f"X-API-Key: {api.key}"]
    lines += ["Accept: text/event-stream", "Accept-Encoding: gzip, br, zstd", "", ""]
    async with served.connection() as connection:
        await connection.send("\r\n".join(lines).encode())
        head = await connection.reader.readuntil(b"\r\n\r\n")
        assert b"content-encoding" not in head.lower()
        assert b"stream.open" in await connection.reader.readuntil(b"stream.open")
