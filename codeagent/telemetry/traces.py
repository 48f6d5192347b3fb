"""Traces: W3C trace context in and out of headers and ledger rows, one span a hop."""

from __future__ import annotations

import random
from contextlib import AbstractContextManager

from opentelemetry import context as context_api
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind, TraceFlags

CONSUMER = SpanKind.CONSUMER
_TRACER = trace.get_tracer("codeagent")


def configure_traces(service: str, version: str, endpoint: str | None, ratio: float) -> None:
    """Trace ids are always made, so that logs and messages can be joined; spans are recorded only where an OTLP
    `endpoint` is given that takes them, sampled at `ratio`."""
    if not endpoint:
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415  slow to import
        OTLPSpanExporter,
    )

    resource = Resource.create(
        {"service.name": f"codeagent-{service}", "service.namespace": "codeagent", "service.version": version}
    )
    provider = TracerProvider(resource=resource, sampler=ParentBased(TraceIdRatioBased(ratio)))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    trace.set_tracer_provider(provider)


def parse_traceparent(text: str | None) -> SpanContext | None:
    """The context named by a `traceparent`, or None when there is none or it is malformed."""
    if text is None:
        return None
    parts = text.split("-")
    if len(parts) != 4 or len(parts[1]) != 32 or len(parts[2]) != 16:
        return None
    try:
        context = SpanContext(int(parts[1], 16), int(parts[2], 16), True, TraceFlags(int(parts[3], 16)))
    except ValueError:
        return None
    return context if context.is_valid else None


def current_traceparent() -> str | None:
    """The `traceparent` to hand on, or None outside any trace."""
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"


def span(
    name: str,
    kind: SpanKind = SpanKind.INTERNAL,
    *,
    parent: str | None = None,
    attributes: dict[str, str | int] | None = None,
) -> AbstractContextManager[Span]:
    """A span that continues the trace of `parent`, a `traceparent`, or the current one. Messages that crossed a
    topic are linked as well, so that a sampled consumer finds its producer."""
    context = parse_traceparent(parent)
    if not isinstance(trace.get_tracer_provider(), TracerProvider):
        # Nobody takes spans: only their ids are made, which costs much less.
        return _Unrecorded(NonRecordingSpan(_successor(context)))
    return _TRACER.start_as_current_span(
        name,
        context=None if context is None else trace.set_span_in_context(NonRecordingSpan(context)),
        kind=kind,
        attributes=attributes,
        links=[Link(context)] if context is not None and kind is SpanKind.CONSUMER else None,
        record_exception=False,
    )


class _Unrecorded(AbstractContextManager[Span]):
    """The current span while it is entered. `trace.use_span` does the same by way of a generator."""

    __slots__ = ("_span", "_token")

    def __init__(self, span: Span) -> None:
        self._span = span

    def __enter__(self) -> Span:
        self._token = context_api.attach(trace.set_span_in_context(self._span))
        return self._span

    def __exit__(self, *_: object) -> None:
        context_api.detach(self._token)


def _successor(parent: SpanContext | None) -> SpanContext:
    """The context of a span below `parent`, the current span, or of a new trace; never sampled."""
    above = parent if parent is not None else trace.get_current_span().get_span_context()
    trace_id = above.trace_id if above.is_valid else random.getrandbits(128)
    return SpanContext(trace_id, random.getrandbits(64), is_remote=False)  # zero once in 2^64: then it has no parent
