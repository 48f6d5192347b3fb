"""How the settings say that Kafka is reached securely, and what of them does not go together."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
from faststream.kafka.security import parse_security
from pydantic import SecretStr

from codeagent.broker.consumer import _security
from codeagent.cli.kafka import kafka_connection, kafka_problems
from codeagent.settings import Misconfigured, Settings
from tests.services.certificates import Authority

PASSWORD = "a-password-of-a-test"
ACCOUNT = {"kafka_username": "codeagent", "kafka_password": SecretStr(PASSWORD)}


def settings(protocol: str, **more: Any) -> Settings:
    where = {"database_url": SecretStr("postgresql://x@y/z"), "kafka_bootstrap_servers": "kafka:9093"}
    return Settings(**where, kafka_security_protocol=protocol, **more)


def test_plain_text_is_the_default_and_needs_nothing() -> None:
    connection = kafka_connection(settings("PLAINTEXT"), "test")
    assert connection.options() == {"bootstrap_servers": "kafka:9093", "client_id": "test"}
    assert _security(connection.security) is None


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-512", "PLAIN"])
def test_an_account_is_shown_within_tls_and_to_every_client_library_alike(mechanism: str) -> None:
    connection = kafka_connection(settings("SASL_SSL", kafka_sasl_mechanism=mechanism, **ACCOUNT), "test")
    told = connection.options()
    context = told.pop("ssl_context")
    assert told == {
        "bootstrap_servers": "kafka:9093",
        "client_id": "test",
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": mechanism,
        "sasl_plain_username": "codeagent",
        "sasl_plain_password": PASSWORD,
    }
    theirs = parse_security(_security(connection.security))
    assert theirs.pop("ssl_context") is context
    assert theirs.items() <= told.items()
    assert PASSWORD not in repr(connection)


def test_tls_is_new_enough_and_asks_who_is_there(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.identity("client")
    given = {"kafka_ca_file": authority.certificate_file, "kafka_certificate_file": certificate}
    connection = kafka_connection(settings("SSL", kafka_certificate_key_file=key, **given), "test")
    assert connection.security is not None
    context = connection.security.context
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert [item["subject"] for item in context.get_ca_certs()] == [
        ((("commonName", f"authority of {tmp_path.name}"),),)
    ]
    theirs = parse_security(_security(connection.security))
    assert theirs == {"security_protocol": "SSL", "ssl_context": context}


@pytest.mark.parametrize(
    ("protocol", "more", "named", "reason"),
    [
        ("PLAINTEXT", {"kafka_ca_file": Path("ca.pem")}, "KAFKA_CA_FILE", "the connection is plain text"),
        ("PLAINTEXT", {"kafka_username": "codeagent"}, "KAFKA_USERNAME", "nobody is shown it"),
        ("SSL", {"kafka_password": SecretStr(PASSWORD)}, "KAFKA_PASSWORD", "nobody is shown it"),
        ("SASL_SSL", {"kafka_username": "codeagent"}, "KAFKA_PASSWORD", "is not set"),
        ("SASL_SSL", {"kafka_password": SecretStr(PASSWORD)}, "KAFKA_USERNAME", "is not set"),
        ("SSL", {"kafka_certificate_file": Path("me.pem")}, "KAFKA_CERTIFICATE_FILE", "needs a key"),
        ("SSL", {"kafka_ca_file": Path("/nowhere/ca.pem")}, "KAFKA_CA_FILE", "No such file"),
    ],
)
def test_what_does_not_go_together_is_named(protocol: str, more: dict[str, Any], named: str, reason: str) -> None:
    wrong = settings(protocol, **more)
    [problem] = kafka_problems(wrong)
    assert problem.variable == f"CODEAGENT_{named}"
    assert reason in problem.message
    assert PASSWORD not in str(problem)
    with pytest.raises(Misconfigured, match=named):
        kafka_connection(wrong, "test")


def test_a_file_that_is_no_certificate_is_named(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    [problem] = kafka_problems(settings("SSL", kafka_ca_file=tmp_path / "ca.pem"))
    assert (problem.variable, "cannot be used" in problem.message) == ("CODEAGENT_KAFKA_CA_FILE", True)
