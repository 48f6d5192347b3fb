"""Everything that is kept of one person, section by section as the list of holdings names them, and nothing of
anybody else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from codeagent.encryption import SecretBox
from codeagent.errors import Unreadable
from codeagent.eventlog.database import Database
from codeagent.eventlog.log import COLUMNS
from codeagent.eventlog.sealing import open_events, subject_of
from codeagent.eventlog.stored import StoredEvent, from_row
from codeagent.eventlog.tenants import TenantLog
from codeagent.identity.api_keys import name_place
from codeagent.identity.users import open_email
from codeagent.messages.events import RunSubmitted
from codeagent.messages.identity_events import ServiceAccountCreated
from codeagent.messages.ids import run_stream
from codeagent.messages.personal import holds_content
from codeagent.messages.subagents import SubagentStarted
from codeagent.privacy.requests import open_request_texts
from codeagent.projections.audit_search import AuditEntry, AuditFilter, AuditSearch
from codeagent.projections.view import RunView
from codeagent.projects.sessions import title_place
from codeagent.subjects.key import key_id_of
from codeagent.subjects.texts import open_texts

PAGE = 200


class SubjectData:
    """`database` works under the edge's role. Without a `box` addresses cannot be opened: there are no users then."""

    def __init__(self, database: Database, log: TenantLog, box: SecretBox | None) -> None:
        self._database = database
        self._log = log
        self._audit = AuditSearch(database)
        self._box = box

    async def user(self, tenant_id: str, user_id: str) -> dict[str, Any]:
        """Empty for one who is not there."""
        query = """SELECT id, role, email_sealed, created_at, disabled_at, restricted_at, erased_at
                   FROM users WHERE id = $1"""
        rows = await self._database.fetch(query, user_id, tenant=tenant_id)
        if not rows:
            return {}
        record = dict(rows[0])
        sealed = record.pop("email_sealed")
        box = self._box
        return {
            **record,
            "email": None if box is None else await open_email(self._database.subjects, box, user_id, sealed),
        }

    async def sessions(self, tenant_id: str, user_id: str) -> list[dict[str, Any]]:
        return await self._rows(
            """SELECT id, client_id, scope, encode(network_digest, 'hex') AS network, auth_time, created_at,
                      last_used_at, expires_at, revoked_at, revoked_reason
               FROM login_sessions WHERE user_id = $1 ORDER BY id""",
            tenant_id,
            user_id,
        )

    async def api_keys(self, tenant_id: str, user_id: str) -> list[dict[str, Any]]:
        """What is known of keys that act for the user or were made by them: never a key."""
        rows = await self._rows(
            """SELECT id, name, hint, scopes, networks::text[] AS networks, replaces, replaced_by, created_at,
                      expires_at, revoked_at, last_used_at
               FROM api_keys WHERE principal_id = $1 OR created_by = $1 ORDER BY id""",
            tenant_id,
            user_id,
        )
        names = await open_texts(self._database.subjects, {name_place(row["id"]): row["name"] for row in rows})
        return [{**row, "name": names[name_place(row["id"])]} for row in rows]

    async def service_accounts(self, tenant_id: str, user_id: str) -> list[dict[str, Any]]:
        """Those that the user made, as the audit tells."""
        return await self._rows(
            """SELECT id, name, scope, created_at, disabled_at FROM service_accounts
               WHERE id IN (SELECT resource_id FROM audit_events
                            WHERE tenant_id = current_tenant() AND actor_id = $1 AND action = $2)
               ORDER BY id""",
            tenant_id,
            user_id,
            ServiceAccountCreated.NAME,
        )

    async def conversations(self, tenant_id: str, user_id: str) -> list[dict[str, Any]]:
        """The sessions of runs that the user began."""
        rows = await self._rows(
            "SELECT id, project_id, title, created_at, closed_at FROM sessions WHERE created_by = $1 ORDER BY id",
            tenant_id,
            user_id,
        )
        titles = await open_texts(self._database.subjects, {title_place(row["id"]): row["title"] for row in rows})
        return [{**row, "title": titles[title_place(row["id"])]} for row in rows]

    async def usage(self, tenant_id: str, user_id: str) -> list[dict[str, Any]]:
        """What the user's runs have used, by day and model."""
        return await self._rows(
            """SELECT day, model, project_id, calls, input_tokens, output_tokens, cost_usd::text AS cost_usd,
                      sandbox_ms
               FROM usage_by_day WHERE principal_id = $1 ORDER BY day, model, project_id""",
            tenant_id,
            user_id,
        )

    async def budgets(self, tenant_id: str, user_id: str) -> list[dict[str, Any]]:
        """What the tenant lets the user spend."""
        return await self._rows(
            """SELECT id, name, period, unit, amount::text AS amount, action, created_at
               FROM budgets WHERE scope = 'principal' AND scope_id = $1 ORDER BY id""",
            tenant_id,
            user_id,
        )

    async def privacy_requests(self, tenant_id: str, user_id: str) -> list[dict[str, Any]]:
        query = """SELECT id, kind, note, status, reason, extension, created_at, due_at, ended_at
                   FROM privacy_requests WHERE subject_id = $1 ORDER BY id"""
        rows = await self._database.fetch(query, user_id, tenant=tenant_id)
        return await open_request_texts(self._database.subjects, rows)

    async def _rows(self, query: str, tenant_id: str, *arguments: object) -> list[dict[str, Any]]:
        return [dict(row) for row in await self._database.fetch(query, *arguments, tenant=tenant_id)]

    async def runs(self, tenant_id: str, user_id: str) -> AsyncIterator[RunView]:
        """Runs that the user submitted, each followed by those that it has started, with their tasks and results, one
        at a time; as far as their events can be read."""
        wanted = AuditFilter(actor=user_id, action=RunSubmitted.NAME)
        async for entry in self._audit.oldest(tenant_id, wanted):
            family = [entry.resource_id]
            while family:
                view = RunView(family.pop(), tenant_id)
                async for stored in self._log.stream(tenant_id, run_stream(view.run_id)):
                    try:
                        view.apply(stored)
                        event = stored.decode()
                    except Unreadable:
                        continue  # `said_in` names it
                    if isinstance(event, SubagentStarted):
                        family.append(event.child_run_id)
                if view.version:
                    yield view

    async def said_in(self, tenant_id: str, user_id: str, run_id: str) -> AsyncIterator[StoredEvent]:
        """What a run of the user's holds of them, in its own stream and then in those of its calls and commands: all
        that is sealed with their key and can be read, or was to be said of them before anything was sealed."""
        key_id = key_id_of(tenant_id, user_id)
        async for stored in self._log.stream(tenant_id, run_stream(run_id)):
            if not stored.erased and (stored.key_id == key_id or (stored.key_id is None and _is_of(stored, user_id))):
                yield stored
        beside = "e.metadata ->> 'runid' = $4 AND e.stream_id <> $5"
        async for stored in self._sealed(tenant_id, key_id, beside, run_id, run_stream(run_id)):
            yield stored

    def written_elsewhere(self, tenant_id: str, user_id: str) -> AsyncIterator[StoredEvent]:
        """All else that is sealed with the user's key: what they wrote in runs of others, and outside of runs."""
        elsewhere = """NOT EXISTS (
            SELECT FROM events o WHERE o.stream_id = 'run-' || (e.metadata ->> 'runid') AND o.stream_version <= 2
                AND o.event_type = 'run.submitted' AND o.key_id = e.key_id)"""
        return self._sealed(tenant_id, key_id_of(tenant_id, user_id), elsewhere)

    async def _sealed(
        self, tenant_id: str, key_id: str, condition: str, *arguments: object
    ) -> AsyncIterator[StoredEvent]:
        """In the order in which they were written. The condition is ours."""
        query = f"""SELECT {COLUMNS} FROM events e
            WHERE e.key_id = $1 AND e.sealed IS NOT NULL AND e.global_position > $2 AND {condition}
            ORDER BY e.global_position LIMIT $3"""  # noqa: S608  constants
        after, rows = 0, PAGE
        while rows == PAGE:
            found = await self._database.fetch(query, key_id, after, PAGE, *arguments, tenant=tenant_id)
            rows = len(found)
            for stored in await open_events(self._database.subjects, [from_row(row) for row in found]):
                after = stored.global_position
                yield stored

    def audit(self, tenant_id: str, user_id: str) -> AsyncIterator[AuditEntry]:
        """What the user did, and what was done to their account."""
        return self._audit.oldest(tenant_id, AuditFilter(subject=user_id))


def _is_of(stored: StoredEvent, user_id: str) -> bool:
    """Of an event of the user's run that is not sealed: whether it says anything that is not somebody else's. What
    cannot be read is the run's, and so theirs."""
    try:
        event = stored.decode()
    except Unreadable:
        return True
    return holds_content(event) and subject_of(event, user_id) == user_id
