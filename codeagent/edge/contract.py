"""What the API and its messages look like, for tools: OpenAPI, AsyncAPI, JSON Schemas, and where to find them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from typing import Any

import orjson
from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from pydantic import BaseModel

from codeagent import clock
from codeagent.edge.asyncapi import asyncapi
from codeagent.edge.context import EdgeContext, count_anonymous
from codeagent.edge.openapi import build
from codeagent.edge.parameters import IF_NONE_MATCH, taking
from codeagent.edge.preconditions import not_modified
from codeagent.errors import NotFound
from codeagent.messages.catalog import CURRENT, json_schema

router = APIRouter(tags=["contract"], dependencies=[Depends(count_anonymous)])

SHORTLY = "public, max-age=300"
FOR_EVER = "public, max-age=31536000, immutable"
_KNOWN = {"description": "The client has it already."}
CONTACT_HOLDS = timedelta(days=180)


class SchemaEntry(BaseModel):
    """A message in its current version."""

    name: str
    version: int
    href: str


class SchemaList(BaseModel):
    """Every message there is."""

    items: list[SchemaEntry]


@dataclass(frozen=True, slots=True)
class Document:
    """Bytes and the tag that names them. The tag is weak, since they also travel compressed."""

    body: bytes
    etag: str

    @classmethod
    def of(cls, value: Any) -> Document:
        body = orjson.dumps(value)
        return cls(body, f'W/"{sha256(body).hexdigest()[:32]}"')

    def answer(self, request: Request, media_type: str, cached: str) -> Response:
        headers = {"ETag": self.etag, "Cache-Control": cached, "Vary": "Accept-Encoding"}
        if not_modified(request.headers.get("if-none-match"), self.etag):
            return Response(status_code=304, headers=headers)
        return Response(self.body, headers=headers, media_type=media_type)


async def _document(request: Request, name: str, make: Callable[[], Any]) -> Document:
    """Made once, when somebody asks for it: it takes a moment, which nobody else should wait for."""
    documents: dict[str, Document] = request.app.state.documents
    async with request.app.state.making:
        if name not in documents:
            documents[name] = await asyncio.to_thread(lambda: Document.of(make()))
    return documents[name]


@router.get(
    "/openapi.json",
    summary="The OpenAPI document",
    response_class=Response,
    openapi_extra=taking(IF_NONE_MATCH),
    responses={
        200: {"content": {"application/json": {"example": {"openapi": "3.2.0"}}}},
        304: _KNOWN,
    },
)
async def openapi_document(request: Request) -> Response:
    """Every operation of this API, in OpenAPI 3.2."""
    context: EdgeContext = request.app.state.context
    made = await _document(request, "openapi", lambda: build(request.app, context.policy.public_url))
    return made.answer(request, "application/json", SHORTLY)


@router.get(
    "/asyncapi.json",
    summary="The AsyncAPI document",
    response_class=Response,
    openapi_extra=taking(IF_NONE_MATCH),
    responses={
        200: {"content": {"application/json": {"example": {"asyncapi": "3.0.0"}}}},
        304: _KNOWN,
    },
)
async def asyncapi_document(request: Request) -> Response:
    """Every topic and the WebSocket, with their messages, who writes and who reads them, in AsyncAPI 3."""
    context: EdgeContext = request.app.state.context
    made = await _document(request, "asyncapi", lambda: asyncapi(context.topics))
    return made.answer(request, "application/json", SHORTLY)


@router.get("/v1/schemas", response_model=SchemaList, summary="List the schemas of messages")
async def list_schemas() -> Response:
    """Commands, events and results, each in its current version, by name."""
    entries = [
        SchemaEntry(name=name, version=item.VERSION, href=f"/v1/schemas/{name}/{item.VERSION}")
        for name, item in sorted(CURRENT.items())
    ]
    body = SchemaList(items=entries).model_dump_json()
    return Response(body, headers={"Cache-Control": SHORTLY}, media_type="application/json")


@router.get(
    "/v1/schemas/{name}/{version}",
    summary="The schema of a message",
    response_class=Response,
    openapi_extra=taking(IF_NONE_MATCH),
    responses={
        200: {"content": {"application/schema+json": {"example": {"title": "RunCompleted", "type": "object"}}}},
        304: _KNOWN,
    },
)
async def get_schema(request: Request, name: str, version: str) -> Response:
    """JSON Schema 2020-12 of a message's data. A version never changes, so it may be cached for ever."""
    payload = CURRENT.get(name)
    if payload is None or version != str(payload.VERSION):
        raise NotFound("There is no such schema.")
    made = await _document(request, f"{name}.v{version}", lambda: json_schema(payload))
    return made.answer(request, "application/schema+json", FOR_EVER)


@router.get(
    "/.well-known/security.txt",
    summary="Where to report a weakness",
    response_class=Response,
    responses={
        200: {"content": {"text/plain": {"example": "Contact: mailto:security@example.com\n"}}},
        404: {"description": "No contact is configured."},
    },
)
async def security_txt(request: Request) -> Response:
    """RFC 9116, where the operator has named a contact."""
    policy = request.app.state.context.policy
    if policy.security_contact is None:
        raise NotFound("No contact is configured.")
    expires = (clock.now() + CONTACT_HOLDS).replace(hour=0, minute=0, second=0, microsecond=0)
    lines = [f"Contact: {policy.security_contact}", f"Expires: {expires:%Y-%m-%dT%H:%M:%SZ}", "Preferred-Languages: en"]
    lines.append(f"Canonical: {policy.public_url}/.well-known/security.txt")
    return Response("\n".join(lines) + "\n", headers={"Cache-Control": SHORTLY}, media_type="text/plain")


_LINKSET = 'application/linkset+json; profile="https://www.rfc-editor.org/info/rfc9727"'


@router.head("/.well-known/api-catalog", include_in_schema=False)
@router.get(
    "/.well-known/api-catalog",
    summary="Where to find this API's descriptions",
    response_class=Response,
    responses={200: {"content": {"application/linkset+json": {"example": {"linkset": [{"anchor": "/"}]}}}}},
)
async def api_catalog(request: Request) -> Response:
    """RFC 9727: links to the OpenAPI and AsyncAPI documents, the schemas, and the status."""
    base = request.app.state.context.policy.public_url
    links = {
        "anchor": f"{base}/",
        "service-desc": [
            {"href": f"{base}/openapi.json", "type": "application/json"},
            {"href": f"{base}/asyncapi.json", "type": "application/json"},
        ],
        "describedby": [{"href": f"{base}/v1/schemas", "type": "application/json"}],
        "status": [{"href": f"{base}/readyz", "type": "application/json"}],
    }
    headers = {"Cache-Control": SHORTLY, "Link": f'<{base}/.well-known/api-catalog>; rel="api-catalog"'}
    return Response(orjson.dumps({"linkset": [links]}), headers=headers, media_type=_LINKSET)
