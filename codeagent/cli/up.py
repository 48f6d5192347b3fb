"""`codeagent up`: the whole system on one machine, one port, one data directory."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import socket
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from codeagent.broker.admin import TopicAdmin, wanted_topics
from codeagent.broker.topics import AGENT_WORKER, PROVIDER_WORKER, SANDBOX_WORKER, load_topics
from codeagent.cli.announcing import Announcer, sandbox_level
from codeagent.cli.backing_up import archiving
from codeagent.cli.configuration import examine_here, tell
from codeagent.cli.connection import CONNECTION_FILE
from codeagent.cli.consent import require_level
from codeagent.cli.kafka import kafka_connection
from codeagent.cli.kek_file import KEK_FILE, own_keys
from codeagent.cli.log_key_file import LOG_KEY_FILE, own_log_key
from codeagent.cli.process import bind, run_process
from codeagent.cli.restored import require_finished, require_key
from codeagent.cli.secrets import database_url, with_secrets
from codeagent.cli.subject_keys import KEYS_DIRECTORY
from codeagent.cli.unprivileged import demotion_of_services, helper_of_worker
from codeagent.cli.up_settings import (
    DATABASE_VARIABLES,
    KAFKA_VARIABLE,
    KEK_VARIABLES,
    LOG_KEY_VARIABLES,
    SUBJECT_KEY_VARIABLES,
    UpOptions,
    is_named,
    up_settings,
    write_settings,
)
from codeagent.embedded.broker import EmbeddedBroker
from codeagent.embedded.children import run_forked
from codeagent.embedded.directories import DirectoryLock, make_directory, write_atomically
from codeagent.embedded.postgres import EmbeddedPostgres
from codeagent.embedded.processes import ChildSpec, ProcessSupervisor, WatchedServer
from codeagent.embedded.sandboxd import EmbeddedSandboxd
from codeagent.errors import Unavailable
from codeagent.eventlog import migrate
from codeagent.identity.keys import digest_of_key, new_key
from codeagent.privacy.retention_policy import set_days_kept
from codeagent.settings import Misconfigured, Problem, Settings
from codeagent.telemetry.logs import configure_logs

PRELOADED = (
    "codeagent.cli.services",
    "codeagent.edge.app",
    "codeagent.edge.live",
    "codeagent.broker.tail",
    "codeagent.cli.identity",
    "codeagent.cli.models",
    "codeagent.cli.transparency",
    "codeagent.cli.webhooks",
    "codeagent.artifacts.store",
    "codeagent.workers.provider",
    "codeagent.workers.sandbox",
    "codeagent.cli.sandbox_parts",
    "uvicorn.protocols.http.httptools_impl",
)
PREPARE_SECONDS = 60.0
KEY_ID = "key_local"
TENANT = "ten_local"
PRINCIPAL = "usr_local"


@dataclass(frozen=True, slots=True)
class Ready:
    """Where the system is, and the level of isolation that its sandboxes have reached."""

    url: str
    level: int


def api_key(data_dir: Path) -> str:
    """The key of this data directory: made once, kept in the connection file, known to the edge by its digest.

    Entries that somebody has put beside it stay. Raises `Misconfigured` where the file holds no list of entries.
    """
    connection = data_dir / CONNECTION_FILE
    key = ""
    if connection.exists():
        key = str(json.loads(connection.read_text()).get("api_key", ""))
    key = key or new_key()
    entry = {
        "key_id": KEY_ID,
        "sha256": digest_of_key(key),
        "tenant_id": TENANT,
        "principal_id": PRINCIPAL,
    }
    file = data_dir / "api-keys.json"
    write_atomically(file, json.dumps([entry, *_other_entries(file)], indent=2))
    return key


def _other_entries(file: Path) -> list[dict[str, Any]]:
    try:
        entries = json.loads(file.read_text()) if file.exists() else []
        return [entry for entry in entries if entry["key_id"] != KEY_ID]
    except (ValueError, TypeError, KeyError):
        raise Misconfigured([Problem(str(file), "is no list of API keys' entries", "mend or remove it")]) from None


def _listener(options: UpOptions) -> socket.socket:
    """The port asked for, else the one used last time, else any."""
    remembered = options.data_dir / "port"
    if options.port == 0 and remembered.exists():
        try:
            return bind(options.host, int(remembered.read_text()))
        except (OSError, ValueError):
            pass
    listener = bind(options.host, options.port)
    remembered.write_text(str(listener.getsockname()[1]))
    return listener


async def _make_topics(settings: Settings) -> None:
    settings = await with_secrets(settings, "kafka_password")
    connection = kafka_connection(settings, "codeagent-up")
    embedded = settings.kafka_sole_member
    admin = TopicAdmin(connection, replication=settings.kafka_replication, configurable=not embedded)
    await admin.apply(wanted_topics(load_topics(settings.topics_dir), settings.topics_profile))


async def _prepare(settings: Settings) -> None:
    await asyncio.gather(_prepare_database(settings), _make_topics(settings))


async def _prepare_database(settings: Settings) -> None:
    url = await database_url(settings)
    await migrate.upgrade(url)
    await set_days_kept(url, settings.run_content_days)


def _find_keys(data_dir: Path) -> None:
    """Those that the environment does not name are the directory's own, made at the first start. Raises `Rejected`
    (`restored_without_keys`, `restore_unfinished`)."""
    require_finished(data_dir)
    if not is_named(KEK_VARIABLES):
        require_key(data_dir, KEK_FILE)
        own_keys(data_dir)
    if not is_named(LOG_KEY_VARIABLES):
        require_key(data_dir, LOG_KEY_FILE)
        own_log_key(data_dir)
    if not is_named(SUBJECT_KEY_VARIABLES):
        require_key(data_dir, KEYS_DIRECTORY)


def _forked(task: Callable[[], Coroutine[Any, Any, None]], data_dir: Path) -> None:
    """Runs a task in a child: a process that forks services must never have had an event loop."""
    log_path = data_dir / "logs" / "prepare.log"
    make_directory(log_path.parent)
    if run_forked(lambda: asyncio.run(task()), PREPARE_SECONDS, log_path=log_path) != 0:
        raise Unavailable(f"the database and the topics could not be prepared: see {log_path}")


def _child(role: str, settings: Settings, listener: socket.socket) -> Callable[[], int]:
    def target() -> int:
        from codeagent.cli import services

        named = settings.model_copy(update={"worker_name": f"{role}-local"})
        try:
            return run_process(partial(services.ROLES[role], named, listener))
        except Misconfigured as error:
            sys.stderr.write(f"codeagent: {error.detail}\n")
            return 2

    return target


STAGES = {"edge": 0, AGENT_WORKER: 1, PROVIDER_WORKER: 1, SANDBOX_WORKER: 1, "relay": 2}
"""In which order the processes are asked to stop."""


class System:
    """The running system of one data directory. `serve` returns its exit status once it is asked to stop."""

    def __init__(self, options: UpOptions) -> None:
        self._options = options

    def serve(self, on_ready: Callable[[Ready], None], until: Callable[[], bool] | None = None) -> int:
        """Raises `Misconfigured`, and `Unavailable`: `data_dir_in_use` while another one runs on the directory,
        `sandbox_unavailable` where the level asked for cannot be reached."""
        options = self._options
        settings = up_settings(options)
        require_level(options.level, options.data_dir / "sandboxes")
        try:
            make_directory(options.data_dir)
        except OSError as error:
            raise Unavailable(f"{options.data_dir} cannot be made: {error.strerror}") from error
        # Wherever the database is: ports, keys and sandboxes of the directory belong to one system.
        lock = DirectoryLock(options.data_dir)
        lock.acquire()
        try:
            configure_logs("up", "warning")
            for name in PRELOADED:
                importlib.import_module(name)
            return self._serve(settings, on_ready, until)
        finally:
            lock.release()

    def _serve(self, settings: Settings, on_ready: Callable[[Ready], None], until: Callable[[], bool] | None) -> int:
        options = self._options
        key = api_key(options.data_dir)
        _find_keys(options.data_dir)
        configuration = examine_here(settings)
        configuration.usable()
        tell(configuration.warnings)
        demotion = demotion_of_services(settings, options.data_dir)
        helper = helper_of_worker(settings, options.data_dir, demotion)
        postgres = EmbeddedPostgres(options.data_dir / "postgres", settings=archiving(settings, options.data_dir))
        broker = EmbeddedBroker(options.data_dir / "broker")
        try:
            if helper is not None:
                # First, since it tries itself out while the others start.
                helper.start()
                settings = settings.model_copy(update={"sandbox_helper": helper.socket})
            if not is_named(DATABASE_VARIABLES):
                settings = settings.model_copy(update={"database_url": SecretStr(postgres.start().url)})
            if not os.environ.get(KAFKA_VARIABLE):
                settings = settings.model_copy(update={"kafka_bootstrap_servers": broker.start()})
            _forked(partial(_prepare, settings), options.data_dir)
            write_settings(options, settings)
            listeners = {role: bind("127.0.0.1", 0) for role in STAGES if role != "edge"}
            listeners["edge"] = listener = _listener(options)
            url = f"http://{options.host}:{listener.getsockname()[1]}"
            settings = settings.model_copy(update={"public_url": settings.public_url or url})
            monitors = {role: f"http://127.0.0.1:{each.getsockname()[1]}" for role, each in listeners.items()}
            connection = {"url": url, "api_key": key}
            write_atomically(options.data_dir / CONNECTION_FILE, json.dumps(connection, indent=2))
            supervisor = ProcessSupervisor(
                [ChildSpec(role, _child(role, settings, listeners[role]), STAGES[role], demotion) for role in STAGES],
                data_dir=options.data_dir,
                servers=_watched(options, settings, postgres, broker, helper),
                drain_seconds=settings.drain_seconds + 5,
                log_to_files=options.quiet,
            )
        except BaseException:
            broker.stop()
            postgres.stop()
            if helper is not None:
                helper.stop()
            raise
        ready = partial(_announce, on_ready, url, monitors[SANDBOX_WORKER])
        return supervisor.run(Announcer(supervisor, monitors.values(), ready, until))


def _announce(on_ready: Callable[[Ready], None], url: str, sandbox_monitor: str) -> bool:
    try:
        level = sandbox_level(sandbox_monitor)
    except OSError:
        return False  # the worker has just ended; the next one will tell
    on_ready(Ready(url, level))
    return True


def _watched(
    options: UpOptions,
    settings: Settings,
    postgres: EmbeddedPostgres,
    broker: EmbeddedBroker,
    helper: EmbeddedSandboxd | None,
) -> list[WatchedServer]:
    def remake_topics() -> None:
        _forked(partial(_make_topics, settings), options.data_dir)

    watched = [WatchedServer("broker", broker, remake_topics)] if settings.kafka_sole_member else []
    if postgres.pid is not None:
        watched.insert(0, WatchedServer("postgres", postgres))
    if helper is not None:
        watched.append(WatchedServer("sandboxd", helper))
    return watched
