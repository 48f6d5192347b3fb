"""The edge as an ASGI application."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from codeagent import __version__
from codeagent.edge import artifacts, events, health, problems, runs, tickets
from codeagent.edge.context import EdgeContext
from codeagent.edge.middleware import RequestMiddleware
from codeagent.edge.websocket import route

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
        # One span and one duration a request are made by `RequestMiddleware`; the framework would add four.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.state.context = context
    problems.install(app)
    for router in (runs.router, events.router, tickets.router, route.router, artifacts.router, health.router):
        app.include_router(router)
    app.add_middleware(RequestMiddleware, max_body_bytes=context.policy.max_body_bytes if context else 1 << 20)
    return app


def openapi() -> dict[str, Any]:
    """The OpenAPI document, as committed under `schemas/`."""
    document = create_app(None).openapi()
    document["components"].setdefault("securitySchemes", {})["api_key"] = {"type": "http", "scheme": "bearer"}
    document["security"] = [{"api_key": []}]
    return document
