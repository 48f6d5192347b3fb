"""Trace ids go on from hop to hop, whether or not anybody takes the spans."""

from __future__ import annotations

import subprocess
import sys

import pytest
from opentelemetry.trace import SpanKind

from codeagent.telemetry.traces import current_traceparent, span

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def ids(traceparent: str | None) -> tuple[str, str]:
    assert traceparent is not None
    _, trace, own, _ = traceparent.split("-")
    return trace, own


def test_a_span_goes_on_with_the_trace_it_is_given_under_an_id_of_its_own() -> None:
    with span("process", SpanKind.CONSUMER, parent=f"00-{TRACE}-{SPAN}-01"):
        trace, own = ids(current_traceparent())
        assert trace == TRACE
        assert own != SPAN
        with span("within"):
            assert ids(current_traceparent())[0] == TRACE
            assert ids(current_traceparent())[1] != own
        assert ids(current_traceparent()) == (TRACE, own)
    assert current_traceparent() is None


@pytest.mark.parametrize("parent", [None, "", "nonsense", f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-zz-01"])
def test_without_a_usable_parent_a_trace_begins(parent: str | None) -> None:
    seen = set()
    for _ in range(2):
        with span("request", SpanKind.SERVER, parent=parent):
            seen.add(ids(current_traceparent())[0])
    assert len(seen) == 2
    assert TRACE not in seen


def test_an_error_passes_through_and_leaves_no_span_behind() -> None:
    with pytest.raises(KeyError), span("process"):
        raise KeyError
    assert current_traceparent() is None


RECORDED = f"""
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from codeagent.telemetry.traces import CONSUMER, span
provider, kept = TracerProvider(), InMemorySpanExporter()
provider.add_span_processor(SimpleSpanProcessor(kept))
trace.set_tracer_provider(provider)
with span("process x", CONSUMER, parent="00-{TRACE}-{SPAN}-01", attributes={{"a": 1}}):
    pass
[made] = kept.get_finished_spans()
assert f"{{made.context.trace_id:032x}}" == "{TRACE}", made
assert f"{{made.parent.span_id:016x}}" == "{SPAN}", made
assert [f"{{link.context.span_id:016x}}" for link in made.links] == ["{SPAN}"], made
assert (made.name, dict(made.attributes)) == ("process x", {{"a": 1}}), made
"""


def test_where_spans_are_taken_they_are_recorded_with_their_parent_and_link() -> None:
    """In a process of its own, since a provider is set once and for all."""
    done = subprocess.run([sys.executable, "-c", RECORDED], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
