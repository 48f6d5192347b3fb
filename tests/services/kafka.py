"""A real single-node Apache Kafka for tests: in a container where Docker answers, else on the local JVM."""

from __future__ import annotations

import base64
import functools
import os
import re
import shutil
import signal
import tempfile
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codeagent.embedded.kafka_probe import answers_kafka
from codeagent.embedded.ports import free_port
from codeagent.embedded.spawning import Program, run_tool, wait_until
from tests.services.kafka_artifacts import kafka_class_path, missing_for_jvm

VERSION = "4.1.1"
_START_TIMEOUT_SECONDS = 60.0
_JVM_OPTIONS = ("-Xmx512m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto")
_LOGGING = (
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.log.org.apache.kafka.common.utils.AppInfoParser=info",
)


def missing_for_kafka(version: str = VERSION) -> str | None:
    """What the machine lacks to run Apache Kafka in tests, or None."""
    missing = missing_for_jvm(version)
    return None if missing is None or docker_answers() else f"Docker, or {missing}"


@functools.cache
def docker_answers() -> bool:
    """Whether a Docker engine is at hand; asked once a session, because asking in vain is slow."""
    if "DOCKER_HOST" not in os.environ and not Path("/var/run/docker.sock").exists():
        return False
    try:
        import docker

        docker.from_env(timeout=5).ping()
    except Exception:
        return False
    return True


@dataclass(frozen=True)
class Secured:
    """A listener with TLS, and with a name and password where `scram` says so. PEM files: `identity` holds the broker's
    key and certificate, `authority` who signs."""

    port: int
    identity: Path
    authority: Path
    account: tuple[str, str] | None = None

    @property
    def protocol(self) -> str:
        return "SSL" if self.account is None else "SASL_SSL"

    def accounts(self) -> list[str]:
        """Of `format`: accounts stand in the cluster's metadata."""
        if self.account is None:
            return []
        name, password = self.account
        return ["--add-scram", f"SCRAM-SHA-512=[name={name},password={password}]"]

    def added_to(self, settings: dict[str, Any]) -> dict[str, Any]:
        listener = f"{self.protocol}://127.0.0.1:{self.port}"
        module = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        return {
            **settings,
            "listeners": f"{settings['listeners']},{listener}",
            "advertised.listeners": f"{settings['advertised.listeners']},{listener}",
            "listener.security.protocol.map": f"{settings['listener.security.protocol.map']},{self.protocol}:{self.protocol}",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": self.identity,
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": self.authority,
            "ssl.client.auth": "required" if self.account is None else "none",
            "sasl.enabled.mechanisms": "SCRAM-SHA-512",
            f"listener.name.{self.protocol.lower()}.scram-sha-512.sasl.jaas.config": module,
        }


class ApacheKafka:
    """One broker with its data, on a port that it keeps over `kill`, `stop` and `restart`."""

    def __init__(self, version: str = VERSION, secured: Secured | None = None) -> None:
        """A `secured` broker runs on the JVM, and has a second listener."""
        self._wanted_version = version
        self._secured = secured
        self._port = free_port()
        self._node: _JvmNode | _ContainerNode | None = None

    @property
    def bootstrap_servers(self) -> str:
        return f"127.0.0.1:{self._port}"

    @property
    def runs_in(self) -> str:
        """`container` or `JVM`."""
        return self._node.kind if self._node is not None else "nothing"

    def start(self) -> str:
        """Starts the broker, waits until it answers, and returns `bootstrap_servers`."""
        if docker_answers() and self._secured is None:
            try:
                self._start_node(_ContainerNode(self._wanted_version, self._port))
            except Exception:
                # An engine that cannot pull the image is no better than none, as long as there is a JVM.
                if missing_for_jvm(self._wanted_version) is not None:
                    raise
        if self._node is None:
            self._start_node(_JvmNode(self._wanted_version, self._port, self._secured))
        return self.bootstrap_servers

    def version(self) -> str:
        """The version as the broker itself reports it when it starts."""
        found = re.search(r"Kafka version: (\S+)", self._running().output())
        if found is None:
            raise RuntimeError("the broker did not report its version")
        return found[1]

    def is_alive(self) -> bool:
        return self._node is not None and self._node.is_alive()

    def stop(self) -> None:
        """An orderly shutdown; the data stays for `restart`."""
        self._running().end(signal.SIGTERM)

    def kill(self) -> None:
        """What a crash does."""
        self._running().end(signal.SIGKILL)

    def restart(self) -> None:
        """Starts the broker again on its data; stops it first if it runs."""
        node = self._running()
        if node.is_alive():
            self.stop()
        node.start()
        self._await_answer(node)

    def close(self) -> None:
        """Ends the broker and deletes its data."""
        if self._node is not None:
            self._node.close()
            self._node = None

    def __enter__(self) -> ApacheKafka:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _running(self) -> _JvmNode | _ContainerNode:
        if self._node is None:
            raise RuntimeError("the broker has not been started")
        return self._node

    def _start_node(self, node: _JvmNode | _ContainerNode) -> None:
        try:
            node.start()
            self._await_answer(node)
        except BaseException:
            node.close()
            raise
        self._node = node

    def _await_answer(self, node: _JvmNode | _ContainerNode) -> None:
        answered = wait_until(
            lambda: not node.is_alive() or answers_kafka("127.0.0.1", self._port),
            _START_TIMEOUT_SECONDS,
            interval_seconds=0.02,
        )
        if not answered or not node.is_alive():
            raise RuntimeError(f"Apache Kafka did not start: {node.output()[-2000:]}")


class _JvmNode:
    kind = "JVM"

    def __init__(self, version: str, port: int, secured: Secured | None = None) -> None:
        self._secured = secured
        self._class_path = kafka_class_path(version)
        self._directory = Path(tempfile.mkdtemp(prefix="codeagent-kafka-"))
        self._properties = self._directory / "server.properties"
        self._log = self._directory / "kafka.log"
        self._program: Program | None = None
        settings = _settings(
            port, free_port(), listen_host="127.0.0.1", advertised_port=port, data=str(self._directory / "data")
        )
        if secured is not None:
            settings = secured.added_to(settings)
        self._properties.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))

    def start(self) -> None:
        java = shutil.which("java") or "java"
        command = [java, *_JVM_OPTIONS, *_LOGGING, "-cp", self._class_path]
        if not (self._directory / "data").exists():
            form = ["kafka.tools.StorageTool", "format", "-t", _cluster_id(), "-c", str(self._properties)]
            accounts = [] if self._secured is None else self._secured.accounts()
            run_tool([*command, *form, *accounts], None)
        self._program = Program(
            [*command, "kafka.Kafka", str(self._properties)],
            account=None,
            log_path=self._log,
            death_signal=signal.SIGKILL,
        )

    def is_alive(self) -> bool:
        return self._program is not None and self._program.exit_status is None

    def end(self, number: signal.Signals) -> None:
        if self._program is None:
            return
        self._program.send(number)
        if not self._program.wait(20.0):
            self._program.send(signal.SIGKILL)
            self._program.wait(5.0)

    def output(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def close(self) -> None:
        self.end(signal.SIGKILL)
        shutil.rmtree(self._directory, ignore_errors=True)


class _ContainerNode:
    kind = "container"

    def __init__(self, version: str, port: int) -> None:
        from testcontainers.core.container import DockerContainer

        settings = _settings(9092, 9093, listen_host="0.0.0.0", advertised_port=port, data="/tmp/kafka-data")
        self._container = DockerContainer(f"apache/kafka:{version}").with_bind_ports(9092, port)
        self._container.with_env("CLUSTER_ID", _cluster_id())
        for name, value in settings.items():
            self._container.with_env("KAFKA_" + name.upper().replace(".", "_"), str(value))
        self._started = False

    def start(self) -> None:
        if self._started:
            self._engine().start()
        else:
            self._container.start()
            self._started = True

    def is_alive(self) -> bool:
        container = self._engine()
        container.reload()
        return bool(container.status == "running")

    def end(self, number: signal.Signals) -> None:
        self._engine().kill(signal=number.name)
        give_up_at = time.monotonic() + 20
        while self.is_alive():
            if time.monotonic() > give_up_at:
                self._engine().kill()
            time.sleep(0.05)

    def output(self) -> str:
        return str(self._engine().logs().decode("utf-8", "replace"))

    def close(self) -> None:
        if self._started:
            self._container.stop()

    def _engine(self) -> Any:
        return self._container.get_wrapped_container()


def _settings(port: int, controller_port: int, *, listen_host: str, advertised_port: int, data: str) -> dict[str, Any]:
    """One broker that is its own controller, quick to start and to rebalance."""
    return {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
        "listeners": f"PLAINTEXT://{listen_host}:{port},CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{advertised_port}",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": data,
        "auto.create.topics.enable": "false",
        "group.initial.rebalance.delay.ms": 0,
        "group.min.session.timeout.ms": 500,
        "offsets.topic.num.partitions": 1,
        "offsets.topic.replication.factor": 1,
        "transaction.state.log.num.partitions": 1,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "share.coordinator.state.topic.num.partitions": 1,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        "num.network.threads": 2,
        "num.io.threads": 4,
        # A killed broker is only let back in when its last session has run out.
        "broker.session.timeout.ms": 1000,
        "broker.heartbeat.interval.ms": 200,
    }


def _cluster_id() -> str:
    # A letter comes first: what begins with a dash is taken for an option.
    return "A" + base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")[1:]
