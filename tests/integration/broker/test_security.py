"""TLS to a real Apache Kafka, with a certificate of our own or with a name and password; and to nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from codeagent.broker.admin import TopicAdmin, Wanted
from codeagent.broker.connection import KafkaConnection
from codeagent.broker.consumer import GroupConsumer
from codeagent.broker.publisher import Publisher
from codeagent.broker.tail import TopicTail
from codeagent.cli.kafka import kafka_connection
from codeagent.embedded.ports import free_port
from codeagent.errors import Unavailable
from codeagent.settings import Settings
from tests.services.certificates import Authority
from tests.services.kafka import VERSION, ApacheKafka, Secured
from tests.services.kafka_artifacts import missing_for_jvm

TOPIC = "test.secured.v1"
ACCOUNT = ("codeagent", "a-password-of-a-test")


@dataclass
class Cluster:
    """A broker that asks for a certificate, or for an account, and the settings that it lets in."""

    kafka: ApacheKafka
    folder: Path
    let_in: dict[str, Any]

    def connection(self, **changes: Any) -> KafkaConnection:
        given = {"database_url": SecretStr("postgresql://x@127.0.0.1/x"), **self.let_in, "kafka_timeout_seconds": 3.0}
        return kafka_connection(Settings(**{**given, **changes}), "test")


@pytest.fixture(scope="module", params=["SSL", "SASL_SSL"])
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if (missing := missing_for_jvm(VERSION)) is not None:
        pytest.skip(missing)
    folder = tmp_path_factory.mktemp("tls")
    authority, port = Authority(folder), free_port()
    certificate, key = authority.identity("broker")
    (folder / "identity.pem").write_bytes(key.read_bytes() + certificate.read_bytes())
    account = ACCOUNT if request.param == "SASL_SSL" else None
    secured = Secured(port, folder / "identity.pem", authority.certificate_file, account)
    let_in: dict[str, Any] = {
        "kafka_bootstrap_servers": f"127.0.0.1:{port}",
        "kafka_security_protocol": request.param,
        "kafka_ca_file": authority.certificate_file,
    }
    if account is None:
        ours, our_key = authority.identity("client")
        let_in |= {"kafka_certificate_file": ours, "kafka_certificate_key_file": our_key}
    else:
        let_in |= {"kafka_username": account[0], "kafka_password": SecretStr(account[1])}
    with ApacheKafka(secured=secured) as kafka:
        yield Cluster(kafka, folder, let_in)


async def test_every_client_of_ours_is_let_in(cluster: Cluster) -> None:
    connection = cluster.connection()
    await TopicAdmin(connection, replication=1).apply([Wanted(TOPIC, 1, {})])
    publisher, tailing, consumed = Publisher(connection), asyncio.Event(), asyncio.Event()
    tail = TopicTail(connection, (TOPIC,), receive=lambda _: None, reconnected=tailing.set)

    async def handle(_: object) -> None:
        consumed.set()

    consumer = GroupConsumer(connection, (TOPIC,), group="test", handle=handle)
    for part in (publisher, tail, consumer):
        await part.start()
    try:
        await publisher.send(TOPIC, "key", [], b"{}")
        async with asyncio.timeout(30):
            await tailing.wait()
            await consumed.wait()
    finally:
        for part in (consumer, tail, publisher):
            await part.stop()


async def test_a_broker_that_somebody_else_vouches_for_is_not_talked_to(cluster: Cluster) -> None:
    stranger = Authority(cluster.folder / "stranger")
    with pytest.raises(Unavailable):
        await TopicAdmin(cluster.connection(kafka_ca_file=stranger.certificate_file), replication=1).plan([])


async def test_who_cannot_show_what_is_asked_for_is_not_let_in(cluster: Cluster) -> None:
    if cluster.let_in["kafka_security_protocol"] == "SSL":
        nobody = cluster.connection(kafka_certificate_file=None, kafka_certificate_key_file=None)
    else:
        nobody = cluster.connection(kafka_password=SecretStr("another-password"))
    with pytest.raises(Unavailable):
        await TopicAdmin(nobody, replication=1).plan([])
