"""The edge as an ASGI application."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware

from codeagent import __version__
from codeagent.edge import (
    account,
    api_keys,
    artifacts,
    events,
    health,
    metadata,
    oauth,
    problems,
    runs,
    service_accounts,
    tickets,
)
from codeagent.edge.context import EdgeContext
from codeagent.edge.middleware import RequestMiddleware
from codeagent.edge.websocket import route

SHOWN_TO_PAGES = (
    "ETag", "Link", "Location", "Retry-After", "Idempotent-Replayed", "X-Request-Id",
)  # fmt: skip
PREFLIGHT_SECONDS = 600
DESCRIPTION = "Submit a task and a repository, watch an agent work on it, take the patch."


def create_app(context: EdgeContext | None) -> FastAPI:
    """The application on a context. Without one it only describes itself (`openapi`)."""
    app = FastAPI(
        title="CodeAgent",
        version=__version__,
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        servers=[{"url": context.policy.public_url}] if context and context.policy.public_url else None,
        # One span and one duration a request are made by `RequestMiddleware`; the framework would add four.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.state.context = context
    problems.install(app)
    routers = (runs, events, tickets, route, artifacts, account, api_keys, service_accounts, oauth, metadata, health)
    for router in (module.router for module in routers):
        app.include_router(router)
    if context and context.policy.allowed_origins:
        # Callers show a key, never a cookie: pages need no credentials of the browser.
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(context.policy.allowed_origins),
            allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=["*"],
            expose_headers=list(SHOWN_TO_PAGES),
            max_age=PREFLIGHT_SECONDS,
        )
    app.add_middleware(RequestMiddleware, max_body_bytes=context.policy.max_body_bytes if context else 1 << 20)
    return app


def openapi() -> dict[str, Any]:
    """The OpenAPI document, as committed under `schemas/`."""
    document = create_app(None).openapi()
    document["components"].setdefault("securitySchemes", {})["api_key"] = {"type": "http", "scheme": "bearer"}
    document["security"] = [{"api_key": []}]
    return document
