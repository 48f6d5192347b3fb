"""How this installation reaches Kafka, from the settings."""

from __future__ import annotations

import ssl
from collections.abc import Iterator

from codeagent.broker.connection import KafkaConnection, KafkaSecurity
from codeagent.settings import Misconfigured, Problem, Settings
from codeagent.settings.about import variable


def kafka_connection(settings: Settings, client_id: str) -> KafkaConnection:
    """`settings` hold the password itself. Raises `Misconfigured`."""
    return KafkaConnection(
        bootstrap_servers=settings.kafka_bootstrap_servers,
        client_id=client_id,
        idempotent=settings.kafka_idempotent,
        fetch_wait_ms=settings.kafka_fetch_wait_ms,
        timeout_seconds=settings.kafka_timeout_seconds,
        sole_member=settings.kafka_sole_member,
        security=kafka_security(settings),
    )


def kafka_security(settings: Settings) -> KafkaSecurity | None:
    """None for plain text. Raises `Misconfigured`."""
    problems = list(kafka_problems(settings))
    if problems:
        raise Misconfigured(problems)
    if settings.kafka_security_protocol == "PLAINTEXT":
        return None
    if settings.kafka_security_protocol == "SSL" or settings.kafka_password is None:
        return KafkaSecurity(_context(settings))
    return KafkaSecurity(
        _context(settings),
        settings.kafka_sasl_mechanism,
        settings.kafka_username or "",
        settings.kafka_password.get_secret_value(),
    )


def kafka_problems(settings: Settings) -> Iterator[Problem]:
    """What of the settings does not go together, or names what cannot be used."""
    protocol = settings.kafka_security_protocol
    of_tls = ("kafka_ca_file", "kafka_certificate_file", "kafka_certificate_key_file")
    of_sasl = ("kafka_username", "kafka_password")
    for name in of_tls if protocol == "PLAINTEXT" else ():
        if getattr(settings, name) is not None:
            yield Problem(variable(name), "is set, and the connection is plain text", _CHOOSE)
    for name in of_sasl:
        if protocol == "SASL_SSL" and not getattr(settings, name):
            yield Problem(variable(name), "is not set", f"{variable('kafka_security_protocol')} is SASL_SSL")
        elif protocol != "SASL_SSL" and getattr(settings, name):
            yield Problem(variable(name), "is set, and nobody is shown it", _CHOOSE)
    if (settings.kafka_certificate_file is None) != (settings.kafka_certificate_key_file is None):
        yield Problem(variable("kafka_certificate_file"), "needs a key, and the key a certificate", "set both or none")
    elif protocol != "PLAINTEXT":
        try:
            _context(settings)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or getattr(error, "reason", None) or type(error).__name__
            yield Problem(variable("kafka_ca_file"), f"or the client's certificate cannot be used ({reason})")


_CHOOSE = f"set {variable('kafka_security_protocol')}"


def _context(settings: Settings) -> ssl.SSLContext:
    """TLS 1.2 or newer, to a server whose certificate names the host. Raises `OSError`."""
    context = ssl.create_default_context(cafile=settings.kafka_ca_file)
    if settings.kafka_certificate_file is not None:
        context.load_cert_chain(settings.kafka_certificate_file, settings.kafka_certificate_key_file)
    return context
