"""What operators do from the terminal: migrate, reconcile topics, make keys, verify a run."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path

from codeagent.broker.admin import TopicAdmin, wanted_topics
from codeagent.broker.topics import load_topics
from codeagent.cli.connection import SETTINGS_FILE
from codeagent.cli.databases import command_database
from codeagent.cli.identity import api_keys
from codeagent.cli.kafka import kafka_connection
from codeagent.cli.secrets import database_url, with_secrets
from codeagent.clock import new_uuid, now
from codeagent.errors import CodeAgentError, InvalidInput
from codeagent.eventlog import migrate
from codeagent.eventlog.database import Database
from codeagent.eventlog.facts import Author
from codeagent.eventlog.log import EventLog
from codeagent.eventlog.stored import StoredEvent
from codeagent.eventlog.tenants import EDGE_ROLE
from codeagent.eventlog.verify import Finding, verify
from codeagent.identity.api_keys import KeyOrder
from codeagent.identity.scopes import parse_scopes
from codeagent.messages.ids import INSTALLATION, run_stream, typed_id
from codeagent.messages.values import ENDING_EVENTS
from codeagent.privacy.retention_policy import set_days_kept
from codeagent.settings import Misconfigured, Settings, read_settings

FAILED, USAGE = 1, 2


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def load_settings(data_dir: Path | None) -> Settings:
    """The environment's settings, or those of the system that a data directory belongs to. Raises `Misconfigured`."""
    path = data_dir / SETTINGS_FILE if data_dir is not None else None
    if path is not None and path.exists():
        return read_settings(**json.loads(path.read_text()))
    return read_settings()


def operator() -> Author:
    """Whoever works at this terminal, by their uid, as the author of a fact about the installation."""
    return Author(INSTALLATION, "system", f"operator:{os.environ.get('SUDO_UID', os.getuid())}", new_uuid())


def guarded(action: object) -> int:
    try:
        return asyncio.run(action)  # type: ignore[arg-type]  # a coroutine of int
    except CodeAgentError as error:
        sys.stderr.write(f"codeagent: {error.detail}\n")
        return USAGE if isinstance(error, Misconfigured | InvalidInput) else FAILED


def upgrade_database(data_dir: Path | None) -> int:
    async def upgrade() -> int:
        settings = load_settings(data_dir)
        url, days = await database_url(settings), settings.run_content_days
        await migrate.upgrade(url)
        say("the database is up to date")
        if await set_days_kept(url, days):
            kept = "as long as the log" if days is None else f"for {days:g} days after their end"
            say(f"the content of runs is kept {kept}")
        return 0

    return guarded(upgrade())


def reconcile_topics(data_dir: Path | None, *, apply: bool) -> int:
    async def reconcile() -> int:
        settings = await with_secrets(load_settings(data_dir), "kafka_password")
        connection = kafka_connection(settings, "codeagent-topics")
        admin = TopicAdmin(connection, replication=settings.kafka_replication, configurable=settings.kafka_idempotent)
        wanted = wanted_topics(load_topics(settings.topics_dir), settings.topics_profile)
        changes = await (admin.apply(wanted) if apply else admin.plan(wanted))
        for change in changes:
            say(f"{change.kind:15} {change.topic}  {change.detail}")
        say(f"{len(wanted)} topics, {len(changes)} differences{' applied' if apply and changes else ''}")
        return 2 if any(change.kind == "conflict" for change in changes) else 0

    return guarded(reconcile())


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that an operator asks for, as typed."""

    tenant_id: str
    principal_id: str
    scopes: str
    name: str
    days: int
    networks: tuple[str, ...]

    def order(self) -> KeyOrder:
        """Raises `InvalidInput` for scopes and networks that are none."""
        if not self.scopes.strip():
            raise InvalidInput("a key needs a scope")
        try:
            return KeyOrder(
                id=typed_id("key", new_uuid()),
                principal_id=self.principal_id,
                name=self.name,
                scopes=parse_scopes(self.scopes.replace(",", " ")),
                networks=tuple(ip_network(network) for network in self.networks),
                expires_at=now() + timedelta(days=self.days),
            )
        except ValueError as error:
            raise InvalidInput(str(error)) from None


def create_key(data_dir: Path | None, wanted: NewKey) -> int:
    async def create() -> int:
        settings = load_settings(data_dir)
        known = await with_secrets(settings, "api_key_pepper")
        async with command_database(settings, role=EDGE_ROLE) as database:
            author = Author(wanted.tenant_id, "system", "operator", new_uuid())
            made = await api_keys(known, database).create(author, wanted.order())
        say(
            json.dumps(
                {"api_key": made.secret, "key_id": made.key.id, "expires_at": str(made.key.expires_at)}, indent=2
            )
        )
        return 0

    return guarded(create())


async def _story(log_reader: EventLog, run_id: str) -> list[StoredEvent]:
    """A run's own events and those of every effect it asked for."""
    own = [event async for event in log_reader.stream(run_stream(run_id))]
    if not own:
        return []
    related = await log_reader.read_correlated(own[0].metadata["correlationid"])
    return own + [event for event in related if event.stream_id != run_stream(run_id)]


async def check_run(database: Database, run_id: str) -> tuple[int, list[Finding]]:
    """How many events were checked, and what is wrong with them."""
    story = await _story(EventLog(database), run_id)
    findings = verify(story)
    own = [event for event in story if event.stream_id == run_stream(run_id)]
    if own and own[-1].type not in ENDING_EVENTS:
        findings.append(Finding(run_stream(run_id), own[-1].version, own[-1].id, "the stream has no terminal event"))
    return len(story), findings


def verify_run(data_dir: Path, run_id: str) -> int:
    async def check() -> int:
        async with command_database(load_settings(data_dir), connections=2) as database:
            count, findings = await check_run(database, run_id)
        if count == 0:
            sys.stderr.write(f"codeagent: there is no run {run_id}\n")
            return 1
        for finding in findings:
            say(f"FAILED {finding}")
        if findings:
            return 1
        say(f"log verified: {count} events of {run_id}, every digest and leaf hash holds")
        return 0

    return guarded(check())
