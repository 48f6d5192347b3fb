"""The edge as an ASGI application."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute

from codeagent import __version__
from codeagent.edge import (
    account,
    admin,
    agent_canaries,
    agent_statistics,
    agent_versions,
    agents,
    api_keys,
    approvals,
    artifacts,
    audit,
    audit_proof,
    breaches,
    budgets,
    calls,
    contract,
    dead_letters,
    events,
    health,
    holds,
    log_tiles,
    member_access,
    members,
    metadata,
    oauth,
    privacy,
    problems,
    projects,
    provider_credentials,
    providers,
    quotas,
    replays,
    run_states,
    runs,
    service_accounts,
    sessions,
    tenant_quotas,
    tickets,
    usage,
    webhooks,
)
from codeagent.edge.compression import Compression
from codeagent.edge.context import EdgeContext
from codeagent.edge.cors import Cors
from codeagent.edge.middleware import RequestMiddleware, security_headers
from codeagent.edge.openapi import build
from codeagent.edge.traffic.addresses import Proxies
from codeagent.edge.traffic.control import TrafficControl
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
        openapi_url=None,
        # A redirect would name whatever host the client has named.
        redirect_slashes=False,
        # One span and one duration a request are made by `RequestMiddleware`; the framework would add four.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.state.context = context
    app.state.documents, app.state.making = {}, asyncio.Lock()
    app.state.traffic = context.traffic if context else TrafficControl()
    problems.install(app)
    accounts = (account, api_keys, service_accounts, members, member_access, webhooks, oauth, metadata)
    work = (runs, run_states, replays, calls, approvals, projects, sessions, events, tickets, route, artifacts)
    doing = (agents, agent_versions, agent_canaries, agent_statistics, providers)
    spending = (usage, budgets, quotas, tenant_quotas)
    evidence = (audit, audit_proof, log_tiles, privacy, holds, breaches)
    operating = (admin, provider_credentials, dead_letters)
    for module in (*work, *doing, *spending, *accounts, *evidence, *operating, contract, health):
        # Laid side by side: an included router is asked twice for each request, and all before it too.
        app.router.routes.extend(_named(module.router))
    if context is not None:
        _add_middleware(app, context)
    return app


def _named(router: APIRouter) -> list[BaseRoute]:
    """The routes of a resource, each operation under the name of its function."""
    for found in router.routes:
        if isinstance(found, APIRoute):
            found.unique_id = found.name
    return router.routes


def _add_middleware(app: FastAPI, context: EdgeContext) -> None:
    """From the innermost to the outermost."""
    policy = context.policy
    always = security_headers(policy.public_url)
    app.add_middleware(Compression)
    app.add_middleware(
        RequestMiddleware,
        traffic=context.traffic,
        proxies=Proxies(policy.trusted_proxies),
        max_body_bytes=policy.max_body_bytes,
        always=always,
    )
    if policy.allowed_origins:
        app.add_middleware(Cors, origins=policy.allowed_origins, always=always)


def openapi() -> dict[str, Any]:
    """The OpenAPI document, as committed under `schemas/`."""
    return build(create_app(None))
