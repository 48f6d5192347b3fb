"""Connections to PostgreSQL, and the translation of the driver's errors into ours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import asyncpg

from codeagent.errors import Conflict, OutcomeUnknown, Unavailable
from codeagent.subjects.keys import SubjectKeys

Row = asyncpg.Record
Connection: TypeAlias = "asyncpg.pool.PoolConnectionProxy[Row] | asyncpg.Connection[Row]"
"""One of the pool inside a transaction, or a session."""

SERVICE_ROLE = "codeagent_service"
"""The database role of everything but the edge: it sees all tenants, and may add to the log and not change it."""

_DOWN = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.ReadOnlySQLTransactionError,
)
# Refused, and so not committed: no room on the disk, no memory, no connection left.
_OUT_OF_RESOURCES = (asyncpg.InsufficientResourcesError, asyncpg.PostgresSystemError)
_STALE_PLAN = (asyncpg.InvalidCachedStatementError,)
# The password was changed, and what we have is not, or the other way round.
_NOT_LET_IN = (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError)
# The role is not there, or not ours to take on.
_NO_ROLE = (asyncpg.InvalidParameterValueError, asyncpg.InsufficientPrivilegeError)


@asynccontextmanager
async def _translated(*, writes: bool) -> AsyncIterator[None]:
    try:
        yield
    except asyncpg.UniqueViolationError as error:
        raise Conflict("This is there already.") from error
    except (asyncpg.SerializationError, asyncpg.DeadlockDetectedError) as error:
        raise Conflict("It was changed at the same moment. Look again.") from error
    except _OUT_OF_RESOURCES as error:
        detail = f"the database has run out of something ({type(error).__name__})"
        raise Unavailable(detail, code="database_unavailable") from error
    except asyncpg.PostgresError as error:
        if isinstance(error, _DOWN):
            raise _down(error, writes=writes) from error
        raise
    except _DOWN as error:
        raise _down(error, writes=writes) from error


def _down(error: BaseException, *, writes: bool) -> Unavailable:
    detail = f"the database does not answer ({type(error).__name__})"
    return OutcomeUnknown(detail) if writes else Unavailable(detail, code="database_unavailable")


async def _no_reset(connection: object) -> None:
    """Sessions are never given state of their own, so there is nothing to reset between two uses."""


class _Session(asyncpg.Connection):
    """A connection that knows the tenant it works for."""

    tenant = ""


class Database:
    """A bounded pool. Every method raises `Unavailable` when PostgreSQL is away and recovers by itself.

    `write` raises `OutcomeUnknown` where the connection died before the commit was confirmed. Under a `role`, which a
    connection has from its start on, it may do what that is granted. Under any but `SERVICE_ROLE`, rows are those of
    the `tenant` that a call names, and none without one; it costs a round trip when it changes.

    A `url` that is a function is asked for each new connection, so that a password may change; `not_let_in` is
    called when the server does not accept it. `subjects` are the keys that what is personal in its rows is sealed with.
    """

    def __init__(
        self,
        url: str | Callable[[], str],
        *,
        connections: int = 8,
        timeout_seconds: float = 10.0,
        name: str = "codeagent",
        role: str | None = None,
        not_let_in: Callable[[], object] = lambda: None,
        subjects: SubjectKeys | None = None,
    ) -> None:
        self.url = url
        self.subjects = subjects or SubjectKeys()
        self._not_let_in = not_let_in
        self._settings = {"application_name": name} if role is None else {"application_name": name, "role": role}
        self._role = role
        self._walled = role not in {None, SERVICE_ROLE}
        self._connections = connections
        self._timeout = timeout_seconds
        self._pool: asyncpg.Pool[Row] | None = None
        self._opening = asyncio.Lock()

    async def _opened(self) -> asyncpg.Pool[Row]:
        if self._pool is None:
            async with self._opening:
                if self._pool is None:
                    self._pool = await asyncpg.create_pool(
                        connect=self._connect,
                        min_size=1,
                        max_size=self._connections,
                        command_timeout=self._timeout,
                        timeout=5.0,
                        max_inactive_connection_lifetime=300.0,
                        reset=_no_reset,
                        connection_class=_Session,
                        server_settings=self._settings,
                    )
        return self._pool

    async def _connect(self, *_: object, **options: Any) -> asyncpg.Connection[Row]:
        try:
            return await asyncpg.connect(self.url if isinstance(self.url, str) else self.url(), **options)
        except _NOT_LET_IN as error:
            self._not_let_in()
            detail = f"the database does not let us in ({type(error).__name__})"
            raise Unavailable(detail, code="database_unavailable") from error
        except _NO_ROLE as error:
            detail = f"the database does not know us as {self._role}: is it upgraded? ({type(error).__name__})"
            raise Unavailable(detail, code="database_unavailable") from error

    async def renew(self) -> None:
        """The address has changed: idle connections are replaced when they are next asked for, busy ones when they
        come back."""
        if self._pool is not None:
            await self._pool.expire_connections()

    async def fetch(self, query: str, *arguments: Any, tenant: str = "") -> Sequence[Row]:
        """Rows of a query that may be repeated without harm."""
        return await self._run(query, arguments, tenant, writes=False)

    async def write(self, query: str, *arguments: Any, tenant: str = "") -> Sequence[Row]:
        """One statement that changes something, committed when this returns."""
        return await self._run(query, arguments, tenant, writes=True)

    async def _run(self, query: str, arguments: tuple[Any, ...], tenant: str, *, writes: bool) -> Sequence[Row]:
        async with _translated(writes=False):
            pool = await self._opened()
            async with asyncio.timeout(self._timeout):  # the pool's own time limit costs a task
                connection = await pool.acquire()
        try:
            async with _translated(writes=writes):
                await self._enter(connection, tenant)
                try:
                    return await connection.fetch(query, *arguments)
                except _STALE_PLAN:
                    # A migration ran beneath us: the statement was refused, not executed.
                    return await connection.fetch(query, *arguments)
        finally:
            await pool.release(connection)

    async def _enter(self, connection: asyncpg.pool.PoolConnectionProxy[Row], tenant: str) -> None:
        session = connection._con  # type: ignore[attr-defined]  # the proxy hides our own attribute
        if self._walled and isinstance(session, _Session) and session.tenant != tenant:
            session.tenant = ""  # should the next statement fail half-way, the next user sets it again
            await session.execute("SELECT set_config('codeagent.tenant_id', $1, false)", tenant)
            session.tenant = tenant

    @asynccontextmanager
    async def transaction(self, tenant: str = "") -> AsyncIterator[Connection]:
        """A transaction for what takes more than one statement. Kept off the path of a step. Its facts are the
        `tenant`'s alone, without a role as well."""
        async with _translated(writes=True):
            pool = await self._opened()
            async with pool.acquire(timeout=self._timeout) as connection:
                await self._enter(connection, tenant)
                async with connection.transaction():
                    if tenant and not self._walled:
                        await connection.execute("SELECT set_config('codeagent.tenant_id', $1, true)", tenant)
                    yield connection

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Connection]:
        """A connection of one's own, outside the pool and its time limits, for what has to stay the same session: it
        is never replaced by another."""
        async with _translated(writes=True):
            connection = await self._connect(timeout=5.0, server_settings=self._settings)
            try:
                yield connection
            finally:
                await connection.close()

    async def connect(self) -> asyncpg.Connection[Row]:
        """A connection of one's own, outside the pool, for `LISTEN`."""
        async with _translated(writes=False):
            return await self._connect(timeout=5.0, server_settings=self._settings)

    async def close(self) -> None:
        if self._pool is not None:
            pool, self._pool = self._pool, None
            try:
                await asyncio.wait_for(pool.close(), 5.0)
            except TimeoutError:
                pool.terminate()
