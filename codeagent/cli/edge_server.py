"""The edge's server and what limits it, from the settings."""

from __future__ import annotations

import socket

from codeagent.cli.process import HttpServer, bind
from codeagent.edge.app import create_app
from codeagent.edge.connections import ConnectionLimits, bounded
from codeagent.edge.context import EdgeContext
from codeagent.edge.middleware import security_headers
from codeagent.edge.traffic.control import TrafficControl
from codeagent.edge.traffic.policy import Rate, RateClass, TrafficPolicy
from codeagent.settings import Settings


def traffic_control(settings: Settings) -> TrafficControl:
    policy = TrafficPolicy(
        rates={
            RateClass.SUBMIT: Rate.of(settings.rate_submit),
            RateClass.WRITE: Rate.of(settings.rate_write),
            RateClass.READ: Rate.of(settings.rate_read),
        },
        tenant_factor=settings.rate_tenant_factor,
        anonymous=Rate.of(settings.rate_anonymous),
        in_flight=settings.max_in_flight,
        tenant_in_flight=settings.max_in_flight_per_tenant,
        streams=settings.max_streams,
        tenant_streams=settings.max_streams_per_tenant,
        loop_lag_seconds=settings.max_loop_lag_seconds,
        body_seconds=settings.body_timeout_seconds,
        request_seconds=settings.request_timeout_seconds,
    )
    control = TrafficControl(policy)
    if settings.valkey_url is not None:
        from codeagent.edge.traffic.shared import SharedCounts  # slow to import

        control.shared = SharedCounts(settings.valkey_url.get_secret_value(), control.rates)
    return control


def edge_server(settings: Settings, context: EdgeContext, listener: socket.socket | None) -> HttpServer:
    """Serves the edge's application, within limits that hold for connections too."""
    limits = ConnectionLimits(
        url_bytes=settings.max_url_bytes,
        headers=settings.max_headers,
        header_bytes=settings.max_header_bytes,
        head_seconds=settings.header_timeout_seconds,
        idle_seconds=settings.keep_alive_seconds,
        connections=settings.max_connections,
    )
    return HttpServer(
        create_app(context),
        listener if listener is not None else bind(settings.http_host, settings.http_port),
        settings.drain_seconds,
        protocol=bounded(limits, security_headers(context.policy.public_url)),
        keep_alive_seconds=settings.keep_alive_seconds,
    )
