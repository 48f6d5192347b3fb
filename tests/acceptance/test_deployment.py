"""The compose file and the image: checked by the tools that know them, and run as written as far as no engine is needed.

What cannot be run here is listed in tests/unavailable.toml.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from secrets import token_hex
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from codeagent.artifacts.blobs import BlobFiles, digest_of
from codeagent.cli.keys import load_keys
from codeagent.cli.secrets import SECRETS
from codeagent.embedded.children import run_forked
from codeagent.embedded.kafka_probe import answers_kafka
from codeagent.encryption import SecretBox, new_key_line, parse_keys
from codeagent.identity.keys import digest_of_key, new_key
from codeagent.settings import Settings
from codeagent.settings.about import variable
from codeagent.settings.variables import file_variable
from codeagent.settings.weakness import weakness
from codeagent.transparency.keys import parse_log_keys
from codeagent.transparency.notes import SigningKey
from tests.acceptance import deployment
from tests.acceptance.deployment import COMPOSE, DOCKERFILE, HEALTHY, ROOT, Service
from tests.acceptance.system import free_port, is_ready, wait_until
from tests.conftest import unavailable
from tests.services.kafka import VERSION, ApacheKafka
from tests.services.kafka_artifacts import kafka_class_path, missing_for_jvm
from tests.services.postgres import PostgresCluster

VARIABLES: dict[str, str] = {}
READY_SECONDS = 60.0
STOP_SECONDS = 15.0
GROUP = 10001
ONE_SHOTS = {"migrate", "topics"}
HELPER = "sandboxd"
LONG_RUNNING = {"edge", "agent-worker", "provider-worker", "sandbox-worker", "relay"}
FROM_ENVIRONMENT_ONLY = {"worker_name": "one value for several processes would let one take back another's work"}


def tool(name: str) -> str:
    """A program of the lint tools, from this interpreter's environment or the PATH."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    return found or unavailable(f"{name} is not installed")


def checked(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_compose_file_fits_the_compose_specification() -> None:
    checked(tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", str(COMPOSE))


def test_the_dockerfile_passes_hadolint() -> None:
    checked(tool("hadolint"), "--failure-threshold", "info", str(DOCKERFILE))


def test_yaml_files_are_tidy() -> None:
    rules = (
        "{extends: default, rules: {line-length: {max: 120}, document-start: disable, braces: {max-spaces-inside: 1}}}"
    )
    checked(
        tool("yamllint"),
        "--strict",
        "-d",
        rules,
        "docker-compose.yml",
        ".pre-commit-config.yaml",
        "topics",
        "deploy/kubernetes",
    )


def test_every_secret_is_a_file_with_an_example_that_production_refuses(tmp_path: Path) -> None:
    secrets = {name: item["file"] for name, item in deployment.load(VARIABLES)["secrets"].items()}
    assert secrets.keys() == {"postgres_password", "kek", "audit_key", "api_key_pepper", "api_keys", "providers"}
    examples = {name: (ROOT / f"{file}.example").read_text() for name, file in secrets.items()}
    assert weakness(examples["postgres_password"]) == weakness(examples["api_key_pepper"]) == "is an example"
    with pytest.raises(ValueError, match=r"key-encryption key|name:base64"):
        SecretBox(parse_keys(examples["kek"].splitlines()))
    with pytest.raises(ValueError, match="no key of a log"):
        parse_log_keys(examples["audit_key"].splitlines())
    (tmp_path / "api-keys.json").write_text(examples["api_keys"])
    with pytest.raises(ValueError, match="sha256"):
        load_keys(tmp_path / "api-keys.json")


def with_settings() -> list[Service]:
    return [service for name, service in deployment.services(VARIABLES).items() if name != HELPER]


def test_it_runs_as_production_and_says_why_what_it_does_without_is_no_risk() -> None:
    for service in with_settings():
        assert service.environment["CODEAGENT_ENV"] == "production"
        risks = json.loads(service.environment["CODEAGENT_ACCEPTED_RISKS"])
        assert risks.keys() == {"plaintext_database", "plaintext_broker", "open_monitor"}


def test_every_service_is_there_in_the_order_it_needs() -> None:
    services = deployment.services(VARIABLES)
    assert {name for name, service in services.items() if service.is_one_shot} == ONE_SHOTS
    assert services.keys() - ONE_SHOTS == {*LONG_RUNNING, HELPER}
    for name in LONG_RUNNING:
        waits_for = services[name].definition["depends_on"]
        expected = dict.fromkeys(ONE_SHOTS, "service_completed_successfully")
        if name == "sandbox-worker":
            expected[HELPER] = "service_healthy"
        assert {key: value["condition"] for key, value in waits_for.items()} == expected
    assert services["migrate"].definition["depends_on"]["postgres"]["condition"] == "service_healthy"
    assert services["topics"].definition["depends_on"]["kafka"]["condition"] == "service_healthy"
    whole = deployment.load(VARIABLES)["services"]
    assert all("healthcheck" in definition for definition in whole.values())


def test_every_process_but_the_helper_is_confined() -> None:
    whole = deployment.load(VARIABLES)["services"]
    for name, definition in whole.items():
        assert definition["deploy"]["resources"]["limits"].keys() == {"cpus", "memory", "pids"}, name
        if name == HELPER:
            assert (definition["privileged"], definition["user"]) == (True, "0:0")
            continue
        assert not definition.get("privileged"), name
        assert definition["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in definition["security_opt"], name
        assert definition.get("read_only") is True or name == "kafka", name
    users = [rest for head, rest in deployment.instructions() if head == "USER"]
    assert users == ["10001:10001"]
    assert [name for name, definition in whole.items() if "ports" in definition] == ["edge"]
    assert all(str(port).startswith("127.0.0.1:") for port in whole["edge"]["ports"])


def test_the_privileged_helper_knows_nobody_and_shares_its_socket_and_notes_with_the_worker_alone() -> None:
    whole = deployment.load(VARIABLES)["services"]
    helper, worker = whole[HELPER], whole["sandbox-worker"]
    assert (helper["environment"], helper["secrets"], helper["networks"]) == ({}, [], ["outside"])
    socket, notes = "sandboxd-socket:/run/codeagent", "sandbox-notes:/var/lib/codeagent/sandboxes/notes"
    assert helper["volumes"] == ["sandboxes:/var/lib/codeagent/sandboxes", notes, socket]
    for shared in (socket, notes):
        assert [name for name, one in whole.items() if shared in one.get("volumes", [])] == ["sandbox-worker", HELPER]
    assert helper["volumes"][0] not in worker["volumes"]
    assert "user" not in worker
    assert worker["environment"]["CODEAGENT_SANDBOX_HELPER"] in helper["command"]


def test_no_secret_is_written_down() -> None:
    assert "POSTGRES_PASSWORD: " not in COMPOSE.read_text()
    for service in with_settings():
        held = {name: service.environment.get(variable(name)) for name in SECRETS}
        assert {name: text for name, text in held.items() if text} == {
            "database_url": "postgresql://codeagent@postgres:5432/codeagent"
        }
    assert not re.search(r"(?i)(password|secret|api_?key)\s*=", DOCKERFILE.read_text())
    kept = subprocess.run(["git", "ls-files", "deploy/secrets"], capture_output=True, text=True, check=True, cwd=ROOT)
    allowed = (".example", ".gitignore", ".gitkeep")
    assert [path for path in kept.stdout.split() if not path.endswith(allowed)] == []


def test_every_setting_can_be_set_under_its_own_name() -> None:
    named: set[str] = set()
    for service in deployment.services(VARIABLES).values():
        named |= service.definition["environment"].keys() | service.environment.keys()
    secrets = {variable(name) if variable(name) in named else file_variable(name) for name in SECRETS}
    others = Settings.model_fields.keys() - FROM_ENVIRONMENT_ONLY.keys() - set(SECRETS)
    assert named == secrets | {variable(name) for name in others}


def test_everything_the_image_copies_is_there_and_let_through() -> None:
    let_through = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied: set[str] = set()
    for head, rest in deployment.instructions():
        words = [word for word in rest.split() if not word.startswith("--chmod")]
        if head == "COPY" and not words[0].startswith("--from"):
            copied |= set(words[:-1])
    assert copied == let_through
    assert all((ROOT / path).exists() for path in copied)


@pytest.mark.parametrize("lock", ["deploy/image/build.txt", "deploy/locks/runtime.txt"])
def test_every_requirement_of_the_image_is_locked_by_hash(lock: str) -> None:
    text = re.sub(r"\\\n", " ", (ROOT / lock).read_text())
    requirements = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    assert requirements
    assert [line for line in requirements if "==" not in line or "--hash=sha256:" not in line] == []


def test_what_cannot_run_here_names_the_checks_that_stand_in_for_it() -> None:
    entries = tomllib.loads((ROOT / "tests/unavailable.toml").read_text())["unavailable"]
    for entry in entries:
        assert entry.keys() == {"what", "needs", "why", "replaced_by"}
        for name in entry["replaced_by"]:
            path, _, function = name.partition("::")
            tree = ast.parse((ROOT / path).read_text())
            assert function in {getattr(node, "name", "") for node in ast.walk(tree)}, name


def store_as(uid: int, root: Path, data: bytes, others: bytes | None = None) -> int:
    """Puts `data` under another user id and the group that all processes share; reads what others put before."""
    os.setgroups([])
    os.setresgid(GROUP, GROUP, GROUP)
    os.setresuid(uid, uid, uid)
    files = BlobFiles(root)
    files.prepare()
    files.put("ten_t", data)
    if others is not None:
        assert files.read("ten_t", digest_of(others), None) == others
        # The next artifact may belong into any directory that another process has made.
        (files.location("ten_t", digest_of(others)).parent / "next").touch()
    return 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can write as two users")
@pytest.mark.parametrize("order", [(0, GROUP), (GROUP, 0)], ids=["root first", "edge first"])
def test_what_one_process_stores_the_others_can_read_and_add_to(place: Path, order: tuple[int, int]) -> None:
    """They share one artifact directory, as the image makes it. Sandbox workers of earlier releases were root."""
    store, log = place / "artifacts", place / "children.log"
    store.mkdir()
    store.chmod(0o770)
    os.chown(store, GROUP, GROUP)
    assert run_forked(lambda: store_as(order[0], store, b"first"), 30, log_path=log) == 0
    assert run_forked(lambda: store_as(order[1], store, b"second", b"first"), 30, log_path=log) == 0


class Stage:
    """Puts what exists outside containers in the place of what the compose file names."""

    def __init__(self, place: Path, bootstrap_servers: str, database_url: str) -> None:
        self._place = place
        self._bootstrap_servers = bootstrap_servers
        account, _, server = database_url.removeprefix("postgresql://").partition("@")
        user, _, password = account.partition(":")
        self._database_url = f"postgresql://{user}@{server}"
        secrets = place / "secrets"
        secrets.mkdir()
        entry = {
            "key_id": "key_t",
            "sha256": digest_of_key(new_key()),
            "tenant_id": "ten_t",
            "principal_id": "usr_t",
        }
        (secrets / "api_keys").write_text(json.dumps([entry]))
        (secrets / "postgres_password").write_text(f"{password}\n")
        (secrets / "kek").write_text(new_key_line("k1"))
        (secrets / "audit_key").write_text(SigningKey.new("log.example").secret())
        (secrets / "api_key_pepper").write_text(token_hex(32))
        provider = {"name": "local", "kind": "openai", "base_url": "http://127.0.0.1:9/v1"}
        (secrets / "providers").write_text(json.dumps([provider]))
        for path in secrets.iterdir():
            path.chmod(0o600)
        self._paths = {
            "/run/secrets": secrets,
            "/var/lib/codeagent": place,
            "/run/codeagent": place,
            "/usr/share/codeagent/topics": ROOT / "topics",
            "/etc/codeagent/flags": ROOT / "deploy" / "flags",
        }

    def environment(self, service: Service) -> dict[str, str]:
        outside = {name: value for name, value in os.environ.items() if not name.startswith("CODEAGENT_")}
        return {**outside, **{name: self._moved(name, value) for name, value in service.environment.items()}}

    def words(self, words: Sequence[str]) -> list[str]:
        """Of a command. Who runs in containers is, here, who runs the tests."""
        here = {str(GROUP): str(os.geteuid())}
        return [here.get(word, self._at(word)) for word in words]

    def _at(self, value: str) -> str:
        for inside, outside in self._paths.items():
            if value.startswith(f"{inside}/"):
                return f"{outside}{value.removeprefix(inside)}"
        return value

    def _moved(self, name: str, value: str) -> str:
        if name == "CODEAGENT_DATABASE_URL":
            named = urlsplit(value)
            assert (named.scheme, named.hostname, named.port) == ("postgresql", "postgres", 5432)
            assert (named.username, named.password, named.path) == ("codeagent", None, "/codeagent")
            return self._database_url
        if name == "CODEAGENT_KAFKA_BOOTSTRAP_SERVERS":
            assert value == "kafka:9092"
            return self._bootstrap_servers
        if name.endswith("_PORT"):
            return str(free_port())
        if value == "0.0.0.0":
            return "127.0.0.1"
        moved = self._at(f"{value}/").removesuffix("/")
        assert moved != value or not value.startswith("/"), f"{name} is a path that nothing stands in for: {value}"
        return moved

    def start(self, service: Service) -> tuple[subprocess.Popen[bytes], dict[str, str], Path]:
        log = self._place / f"{service.name}.log"
        environment = self.environment(service)
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "codeagent", *self.words(service.arguments)],
                env=environment,
                cwd=self._place,
                stdout=output,
                stderr=output,
            )
        return process, environment, log


def health_of(service: Service, environment: dict[str, str], stage: Stage) -> int:
    """The service's own health check, as the engine would run it."""
    kind, program, *arguments = service.definition["healthcheck"]["test"]
    assert kind == "CMD"
    if service.name == HELPER:
        return subprocess.run([program, *stage.words(arguments)], env=environment, check=False).returncode
    assert program == "codeagent-healthy"
    return subprocess.run([sys.executable, "-I", str(HEALTHY), *arguments], env=environment, check=False).returncode


@pytest.mark.timeout(300)
def test_each_services_command_as_written_outside_a_container(
    place: Path, apache_kafka: ApacheKafka, postgres_15: PostgresCluster
) -> None:
    assert ("ENTRYPOINT", json.dumps([deployment.ENTRYPOINT])) in deployment.instructions()
    if os.geteuid() != 0:
        unavailable("the sandbox worker at level 2 needs root")
    if not apache_kafka.is_alive():
        apache_kafka.restart()
    postgres_15.sql("CREATE DATABASE as_composed OWNER codeagent TEMPLATE template1")
    stage = Stage(place, apache_kafka.bootstrap_servers, postgres_15.url("as_composed"))
    services = deployment.services(VARIABLES)
    for name in ("migrate", "topics"):
        process, _, log = stage.start(services[name])
        assert process.wait(60) == 0, log.read_text()
    running = {name: stage.start(services[name]) for name in sorted({*LONG_RUNNING, HELPER})}
    try:
        helper, environment, log = running[HELPER]
        wait_until(
            lambda: helper.poll() is not None or health_of(services[HELPER], environment, stage) == 0, 60, HELPER
        )
        assert helper.poll() is None, log.read_text()[-3000:]
        for name, (process, environment, log) in running.items():
            if name == HELPER:
                continue
            port = environment["CODEAGENT_HTTP_PORT" if name == "edge" else "CODEAGENT_MONITOR_PORT"]
            url = f"http://127.0.0.1:{port}"
            wait_until(
                lambda url=url, process=process: process.poll() is not None or is_ready(url), READY_SECONDS, name
            )
            assert process.poll() is None, f"{name}: {log.read_text()[-3000:]}"
            assert health_of(services[name], environment, stage) == 0, name
        for process, _, _ in running.values():
            process.send_signal(signal.SIGTERM)
        for name, (process, environment, log) in running.items():
            assert process.wait(STOP_SECONDS) == 0, f"{name}: {log.read_text()[-3000:]}"
            assert health_of(services[name], environment, stage) == 1, name
    finally:
        for process, _, _ in running.values():
            process.kill()
            process.wait()
        postgres_15.drop_database(postgres_15.url("as_composed"))


def kafka_properties(place: Path, port: int) -> dict[str, str]:
    """The broker's environment as its image turns it into properties, on this machine's addresses and paths."""
    environment: dict[str, Any] = deployment.load(VARIABLES)["services"]["kafka"]["environment"]
    moved = {"kafka:9092": f"127.0.0.1:{port}", "kafka:9093": f"127.0.0.1:{free_port()}"}
    moved["/var/lib/kafka/data"] = str(place / "kafka")
    properties = {}
    for name, written in environment.items():
        if name == "KAFKA_HEAP_OPTS":
            continue
        value = written
        for inside, outside in moved.items():
            value = value.replace(inside, outside)
        properties[name.removeprefix("KAFKA_").lower().replace("_", ".")] = value
    return properties


@pytest.mark.timeout(120)
def test_kafka_starts_with_the_settings_as_written(place: Path) -> None:
    missing = missing_for_jvm(VERSION)
    if missing is not None:
        unavailable(f"Apache Kafka needs {missing}")
    image = deployment.load(VARIABLES)["services"]["kafka"]["image"]
    assert image == f"apache/kafka:{VERSION}"
    port = free_port()
    settings = place / "server.properties"
    settings.write_text("".join(f"{name}={value}\n" for name, value in kafka_properties(place, port).items()))
    java = [shutil.which("java") or "java", "-Xmx512m", "-XX:TieredStopAtLevel=1", "-cp", kafka_class_path(VERSION)]
    form = ["kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qk", "-c", str(settings)]
    checked(*java, *form)
    log = place / "kafka.log"
    with log.open("wb") as output:
        broker = subprocess.Popen([*java, "kafka.Kafka", str(settings)], stdout=output, stderr=output, cwd=place)
    try:
        wait_until(lambda: broker.poll() is not None or answers_kafka("127.0.0.1", port), 60, "the broker")
        assert broker.poll() is None, log.read_text()[-3000:]
        service = deployment.services(VARIABLES)["topics"]
        stage = Stage(place, f"127.0.0.1:{port}", "postgresql://nobody@127.0.0.1:1/none")
        process, _, topics_log = stage.start(service)
        assert process.wait(60) == 0, topics_log.read_text()
        assert "applied" in topics_log.read_text()
        broker.terminate()
        broker.wait(30)
    finally:
        broker.kill()
        broker.wait()


def test_pre_commit_runs_what_is_installed_and_fetches_nothing() -> None:
    document = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    assert [repository["repo"] for repository in document["repos"]] == ["local"]
    hooks = document["repos"][0]["hooks"]
    assert {hook["language"] for hook in hooks} == {"system"}
    assert all(hook["entry"].startswith(".venv/bin/") for hook in hooks)
    checked(tool("pre-commit"), "validate-config", str(ROOT / ".pre-commit-config.yaml"))
