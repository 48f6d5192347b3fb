"""The edge's own settings, in its own words."""

from __future__ import annotations

from codeagent.cli.identity import public_url
from codeagent.edge.context import EdgePolicy
from codeagent.sandboxes.protocol import DEFAULT_IMAGE
from codeagent.sandboxes.sources import TrustedHost
from codeagent.settings import Settings


def edge_policy(settings: Settings, trusted_hosts: tuple[TrustedHost, ...]) -> EdgePolicy:
    return EdgePolicy(
        durable_accept=settings.durable_accept,
        default_model=settings.default_model,
        max_body_bytes=settings.max_body_bytes,
        max_upload_bytes=settings.max_upload_bytes,
        submit_expiry_seconds=settings.submit_expiry_seconds,
        trusted_hosts=trusted_hosts,
        allowed_origins=settings.allowed_origins,
        public_url=public_url(settings),
        trusted_proxies=tuple(str(network) for network in settings.trusted_proxies),
        security_contact=settings.security_contact,
        limits=settings.limit_policy(),
        egress_hosts=settings.egress_hosts,
        mcp_servers={server.name: frozenset(server.read_only) for server in settings.mcp_servers},
        mcp_tenants={
            server.name: frozenset(server.tenants) for server in settings.mcp_servers if server.tenants is not None
        },
        images=frozenset({DEFAULT_IMAGE, *settings.sandbox_images}),
        default_fallbacks=settings.default_fallbacks,
    )
