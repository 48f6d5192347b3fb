"""What the edge's routes work with, built by the composition root and hung on the application."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, cast

from fastapi import Depends, Request, Security
from fastapi.security import SecurityScopes
from starlette.datastructures import Address

from codeagent.agent_registry.registry import AgentRegistry
from codeagent.artifacts.known import KnownArtifacts
from codeagent.artifacts.store import ArtifactStore
from codeagent.broker.publisher import Publisher
from codeagent.broker.topics import TopicDefinition
from codeagent.budgets.registry import Budgets
from codeagent.dead_letters.letters import DeadLetters
from codeagent.edge.challenges import insufficient_scope, unauthenticated
from codeagent.edge.live import LiveHub
from codeagent.edge.negotiation import check_acceptable
from codeagent.edge.traffic.control import TrafficControl
from codeagent.edge.traffic.exchange import Exchange, exchange_of
from codeagent.edge.views import RunViews
from codeagent.errors import CodeAgentError
from codeagent.eventlog.accept import SubmissionLedger
from codeagent.eventlog.database import Database
from codeagent.eventlog.effects import OutboxRow
from codeagent.eventlog.origins import CommandOrigins
from codeagent.eventlog.tenants import TenantLog
from codeagent.flags.evaluation import Features
from codeagent.identity.api_keys import ApiKeys
from codeagent.identity.jwt import ExpiredToken
from codeagent.identity.principal import Principal
from codeagent.identity.refusals import Reason, Refusal, Refuse
from codeagent.identity.scopes import Scope
from codeagent.identity.tickets import StreamTickets
from codeagent.identity.user_access import UserAccess
from codeagent.projects.git_credentials import GitCredentials
from codeagent.projects.projects import Projects
from codeagent.projects.sessions import Sessions
from codeagent.provider_registry.credentials import Credentials
from codeagent.providers.offers import Offers
from codeagent.providers.registry import ProviderRegistry
from codeagent.quotas.registry import SandboxQuotas
from codeagent.sandboxes.limits import BUILT_IN_POLICY, LimitPolicy
from codeagent.sandboxes.protocol import DEFAULT_IMAGE
from codeagent.sandboxes.sources import TrustedHost
from codeagent.telemetry import metrics
from codeagent.telemetry.logs import get_logger
from codeagent.webhooks.registry import Webhooks

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class SocketLimits:
    """What one WebSocket may take. `frames_burst` frames may come at once, and `frames_per_second` in the long run."""

    auth_seconds: float = 10.0
    send_seconds: float = 30.0
    subscriptions: int = 50
    frames_burst: int = 500
    frames_per_second: float = 100.0


@dataclass(frozen=True, slots=True)
class EdgePolicy:
    """The edge's own settings. With `durable_accept` a command is in the database before it is answered."""

    durable_accept: bool
    default_model: str
    max_body_bytes: int
    max_upload_bytes: int
    submit_expiry_seconds: int
    public_url: str = "http://127.0.0.1:8080"
    """Where clients reach the edge, without a slash at its end."""
    images: frozenset[str] = frozenset({DEFAULT_IMAGE})
    """Names of the images that sandboxes of this installation can have."""
    trusted_hosts: tuple[TrustedHost, ...] = ()
    heartbeat_seconds: float = 15.0
    allowed_origins: tuple[str, ...] = ()
    """Origins of web pages, besides our own, that may call the API and open a WebSocket."""
    sockets: SocketLimits = SocketLimits()
    trusted_proxies: tuple[str, ...] = ()
    """Addresses or networks whose word on where a request comes from is taken."""
    security_contact: str | None = None
    """A URI that security.txt names."""
    limits: LimitPolicy = BUILT_IN_POLICY
    """What runs may ask for of sandboxes."""
    egress_hosts: tuple[str, ...] = ()
    """What commands may reach at most, as `name:port` or `*.name:port`."""
    default_fallbacks: tuple[str, ...] = ()
    """What stands in for the default model."""
    mcp_servers: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """MCP servers whose tools agents may use, and of each those that change nothing."""
    mcp_tenants: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Of those that are not for everybody, whose they are."""

    def mcp_servers_of(self, tenant_id: str) -> frozenset[str]:
        """Those whose tools a tenant's agents may use."""
        return frozenset(name for name in self.mcp_servers if tenant_id in self.mcp_tenants.get(name, {tenant_id}))


@dataclass(frozen=True, slots=True)
class EdgeContext:
    database: Database
    log: TenantLog
    submissions: SubmissionLedger
    origins: CommandOrigins
    publisher: Publisher
    hand_over: Callable[[OutboxRow], None]
    store: ArtifactStore
    known: KnownArtifacts
    hub: LiveHub
    views: RunViews
    authenticate: Callable[[str], Awaitable[Principal | None]]
    still_valid: Callable[[Principal], bool]
    """Whether a credential that was accepted still is. Open streams ask often, so it must cost nothing; who revokes
    calls `hub.recheck` to have them ask at once."""
    tickets: StreamTickets
    keys: ApiKeys
    agents: AgentRegistry
    webhooks: Webhooks
    projects: Projects
    git_credentials: GitCredentials
    credentials: Credentials
    """Keys of model providers."""
    dead_letters: DeadLetters
    sessions: Sessions
    budgets: Budgets
    sandbox_quotas: SandboxQuotas
    supports_model: Callable[[str], bool]
    checks: dict[str, Callable[[], Awaitable[bool]]]
    """What must hold for the edge to be ready, by name."""
    policy: EdgePolicy
    features: Features = field(default_factory=Features)
    users: UserAccess | None = None
    """Users and their tokens; None where there is no key to seal their secrets with."""
    topics: tuple[TopicDefinition, ...] = ()
    """What the AsyncAPI document is made from."""
    traffic: TrafficControl = field(default_factory=TrafficControl)
    offers: Offers = field(default_factory=lambda: Offers(ProviderRegistry().settings()))
    """What callers may know of the model providers."""
    refuse: Refuse = lambda *_: None
    """Told of each known caller who is refused."""


# Dependencies are coroutines, since the framework would send plain functions through a thread each.
async def get_context(request: Request) -> EdgeContext:
    return cast(EdgeContext, request.app.state.context)


async def get_users(request: Request) -> UserAccess:
    """Raises `not_implemented` on an installation without users."""
    users = (await get_context(request)).users
    if users is None:
        raise CodeAgentError("This installation has no users, just API keys.", code="not_implemented", status=501)
    return users


async def count_anonymous(request: Request) -> None:
    """Of routes that ask for no credential: they are counted by the address they are called from."""
    traffic: TrafficControl = request.app.state.traffic
    traffic.admit_anonymous(exchange_of(request))


async def get_principal(request: Request, needed: SecurityScopes) -> Principal:
    """The caller, who holds the scopes that the route needs. Raises `unauthenticated` or `insufficient_scope`."""
    exchange = exchange_of(request)
    context: EdgeContext = request.app.state.context
    principal = await _authenticated(context, exchange)
    context.traffic.admit(exchange, principal)
    check_acceptable(exchange.header(b"accept"))
    check_address(context, principal, request.client)
    missing = [scope for scope in needed.scopes if not principal.may(Scope(scope))]
    if missing:
        log.warning("access.denied", caller=principal.id, key_id=principal.credential_id, missing=missing)
        refused(context, principal, "insufficient_scope", request.client)
        raise insufficient_scope(context.policy.public_url, missing)
    return principal


async def _authenticated(context: EdgeContext, exchange: Exchange) -> Principal:
    """Attempts that fail count against the address they come from."""
    scheme, _, credentials = (exchange.header(b"authorization") or "").partition(" ")
    key = credentials.strip() if scheme.lower() == "bearer" else exchange.header(b"x-api-key") or ""
    try:
        principal = await context.authenticate(key) if key else None
    except ExpiredToken:
        _count_refused("token_expired")
        context.traffic.admit_anonymous(exchange)
        raise unauthenticated(context.policy.public_url, shown=True, expired=True) from None
    if principal is None:
        _count_refused("unknown_credential" if key else "no_credential")
        context.traffic.admit_anonymous(exchange)
        raise unauthenticated(context.policy.public_url, shown=bool(key))
    return principal


def _count_refused(reason: str) -> None:
    metrics.AUTH_FAILURES.labels(reason).inc()
    log.info("credential.refused", reason=reason)


def check_address(context: EdgeContext, principal: Principal, client: Address | None) -> None:
    """Raises `forbidden` for a credential that may not be used from where the client is."""
    if not principal.may_come_from(None if client is None else client.host):
        log.warning("credential.used_from_elsewhere", key_id=principal.credential_id)
        refused(context, principal, "foreign_address", client)
        raise CodeAgentError("The credential may not be used from this address.", code="forbidden", status=403)


def refused(context: EdgeContext, caller: Principal, reason: Reason, client: Address | None) -> None:
    """Has the audit know it."""
    refusal = Refusal(caller.tenant_id, caller.type, caller.id, caller.credential_id, reason)
    context.refuse(refusal, None if client is None else client.host)


def _holding(*scopes: Scope) -> Any:
    """The caller of a route that needs these scopes."""
    return Security(get_principal, scopes=[scope.value for scope in scopes])


Context = Annotated[EdgeContext, Depends(get_context)]
Users = Annotated[UserAccess, Depends(get_users)]
Caller = Annotated[Principal, _holding()]
"""Whoever has been let in: for what concerns the caller alone."""
RunReader = Annotated[Principal, _holding(Scope.RUNS_READ)]
RunWriter = Annotated[Principal, _holding(Scope.RUNS_WRITE)]
RunCanceler = Annotated[Principal, _holding(Scope.RUNS_CANCEL)]
ProjectReader = Annotated[Principal, _holding(Scope.PROJECTS_READ)]
ProjectWriter = Annotated[Principal, _holding(Scope.PROJECTS_WRITE)]
AgentReader = Annotated[Principal, _holding(Scope.AGENTS_READ)]
AgentWriter = Annotated[Principal, _holding(Scope.AGENTS_WRITE)]
ProviderReader = Annotated[Principal, _holding(Scope.PROVIDERS_READ)]
AuditReader = Annotated[Principal, _holding(Scope.AUDIT_READ)]
LogAuditor = Annotated[Principal, _holding(Scope.AUDIT_READ, Scope.OPERATOR)]
"""Of the whole installation's log."""
PrivacyOfficer = Annotated[Principal, _holding(Scope.PRIVACY_WRITE)]
Administrator = Annotated[Principal, _holding(Scope.ADMIN)]
ApprovalWriter = Annotated[Principal, _holding(Scope.APPROVALS_WRITE)]
KeyWriter = Annotated[Principal, _holding(Scope.KEYS_WRITE)]
WebhookReader = Annotated[Principal, _holding(Scope.WEBHOOKS_READ)]
WebhookWriter = Annotated[Principal, _holding(Scope.WEBHOOKS_WRITE)]
UsageReader = Annotated[Principal, _holding(Scope.USAGE_READ)]
MemberWriter = Annotated[Principal, _holding(Scope.MEMBERS_WRITE)]
Operator = Annotated[Principal, _holding(Scope.OPERATOR)]
BudgetWriter = Annotated[Principal, _holding(Scope.ADMIN)]
