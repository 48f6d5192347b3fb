"""Structured logs: one JSON object a line on standard error, with the run and trace in hand, and without secrets."""

from __future__ import annotations

import contextlib
import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, BinaryIO, cast

import orjson
import structlog
from opentelemetry import trace

from codeagent.telemetry.redaction import REDACTED, without_secrets

_SECRET_NAMES = re.compile(r"(?i)(password|secret|token|api_?key|authorization|cookie|credential|dsn|database_url)")
EventDict = MutableMapping[str, Any]


def redact(_: object, __: str, event: EventDict) -> EventDict:
    """Blanks values under telling names, and what looks like a key anywhere else."""
    for name, value in event.items():
        if _SECRET_NAMES.search(name):
            event[name] = REDACTED
        elif isinstance(value, str):
            event[name] = without_secrets(value)
    return event


def add_trace(_: object, __: str, event: EventDict) -> EventDict:
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event["trace_id"] = f"{context.trace_id:032x}"
        event["span_id"] = f"{context.span_id:016x}"
    return event


def _name(service: str) -> structlog.typing.Processor:
    def add(_: object, __: str, event: EventDict) -> EventDict:
        event["service"] = service
        return event

    return add


def _render(_: object, __: str, event: EventDict) -> bytes:
    return orjson.dumps(event, default=str)


class _BestEffort:
    """A stream that never raises: on a full disk or a closed pipe lines are lost, not requests."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def write(self, line: bytes) -> int:
        with contextlib.suppress(OSError):
            self._stream.write(line)
        return len(line)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()


class _Bridge(logging.Handler):
    """Libraries that log through the standard library end up in the same lines."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger(record.name).log(
            record.levelno, record.getMessage()[:2_000], exc_info=record.exc_info or None
        )


def configure_logs(service: str, level: str = "info") -> None:
    """Sets up logging for this process. Called once, by the composition root."""
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            add_trace,
            _name(service),
            structlog.processors.format_exc_info,
            redact,
            _render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.BytesLoggerFactory(file=cast(BinaryIO, _BestEffort(sys.stderr.buffer))),
        cache_logger_on_first_use=False,
    )
    # It warns at every start that it does not create topics, which is as it should be.
    logging.getLogger("codeagent.faststream").setLevel(logging.ERROR)
    # It tells what servers send, of which nothing belongs into a log.
    logging.getLogger("mcp").setLevel(logging.CRITICAL)
    logging.basicConfig(handlers=[_Bridge()], level=logging.WARNING, force=True)


def get_logger(name: str) -> Any:
    """A logger whose first argument is a stable action name, as in `log.info("run.ended", run_id=...)`."""
    return structlog.get_logger(name)
