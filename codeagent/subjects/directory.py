"""Keys as files of one directory, for installations on one machine: `<key id>.json`, written whole or not at all.

A file holds no key that could be used: each is wrapped under a key-encryption key, which is elsewhere.
"""

from __future__ import annotations

import asyncio
import base64
import fcntl
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import orjson

from codeagent.errors import Unavailable
from codeagent.subjects.store import StoredKey

_T = TypeVar("_T")


class KeyDirectory:
    """Any number of processes may use it at once. `folder` is made when it is first needed, for its owner alone."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def fetch(self, key_ids: Collection[str]) -> Mapping[str, StoredKey]:
        found = await self._in_thread(lambda: [self._read(key_id) for key_id in key_ids])
        return {key.id: key for key in found if key is not None}

    async def add(self, key: StoredKey) -> StoredKey:
        return await self._in_thread(lambda: self._add(key))

    async def close_for_good(self, key_id: str, at: datetime) -> StoredKey | None:
        return await self._in_thread(lambda: self._change(key_id, lambda key: replace(key, closed_at=at), "closed_at"))

    async def shred(self, key_id: str, at: datetime) -> StoredKey | None:
        def gone(key: StoredKey) -> StoredKey:
            return replace(key, wrapped=None, closed_at=key.closed_at or at, shredded_at=at)

        def done() -> StoredKey | None:
            shredded = self._change(key_id, gone, "shredded_at")
            for left in self._folder.glob(f".{key_id}.*"):  # of a process that was killed while it wrote
                left.unlink(missing_ok=True)
            return shredded

        return await self._in_thread(done)

    async def rewrap(self, key_id: str, former: bytes, wrapped: bytes) -> bool:
        def done() -> bool:
            with self._alone():
                key = self._read(key_id)
                if key is None or key.wrapped != former:
                    return False
                self._write(replace(key, wrapped=wrapped))
            return True

        return await self._in_thread(done)

    async def ids(self, after: str, limit: int) -> list[str]:
        def found() -> list[str]:
            names = sorted(path.stem for path in self._folder.glob("sk_*.json") if path.stem > after)
            kept = (name for name in names if (key := self._read(name)) is not None and key.wrapped is not None)
            return [name for name, _ in zip(kept, range(limit), strict=False)]

        return await self._in_thread(found)

    async def close(self) -> None:
        """There is nothing to close."""

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        try:
            return await asyncio.to_thread(work)
        except OSError as error:
            detail = f"the directory of subjects' keys does not answer ({type(error).__name__})"
            raise Unavailable(detail, code="key_store_unavailable") from error

    def _path(self, key_id: str) -> Path:
        if not key_id.startswith("sk_") or not key_id[3:].isalnum():
            raise Unavailable("no id of a subject's key", code="key_store_unavailable")
        return self._folder / f"{key_id}.json"

    def _read(self, key_id: str) -> StoredKey | None:
        try:
            return _parsed(orjson.loads(self._path(key_id).read_bytes()))
        except FileNotFoundError:
            return None
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise Unavailable(f"{key_id} is damaged in its store", code="key_store_unavailable") from error

    def _add(self, key: StoredKey) -> StoredKey:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        written = self._beside(key)
        try:
            os.link(written, self._path(key.id))  # fails where another process was first
        except FileExistsError:
            there = self._read(key.id)
            if there is None:
                raise
            return there
        finally:
            written.unlink()
        self._settle()
        return key

    def _change(self, key_id: str, change: Callable[[StoredKey], StoredKey], done: str) -> StoredKey | None:
        if self._read(key_id) is None:
            return None
        with self._alone():
            key = self._read(key_id)
            if key is None or getattr(key, done) is not None:
                return key
            changed = change(key)
            self._write(changed)
        return changed

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """No other process changes a key meanwhile: a shredded one must not be written back."""
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _write(self, key: StoredKey) -> None:
        former = self._path(key.id)
        overwritten = former.stat().st_size
        with former.open("r+b") as file:
            written = self._beside(key)
            written.replace(former)
            # The file of before has no name any more. Its blocks are overwritten where the file system lets one.
            with suppress(OSError):
                file.write(os.urandom(overwritten))
                file.flush()
                os.fsync(file.fileno())
        self._settle()

    def _beside(self, key: StoredKey) -> Path:
        path = self._folder / f".{key.id}.{os.getpid()}.{os.urandom(4).hex()}"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            if os.geteuid() == 0:
                # An operator's command must not make what the services cannot read.
                owner = self._folder.stat()
                os.fchown(descriptor, owner.st_uid, owner.st_gid)
            file.write(_written(key))
            file.flush()
            os.fsync(file.fileno())
        return path

    def _settle(self) -> None:
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _written(key: StoredKey) -> bytes:
    return orjson.dumps(
        {
            "key_id": key.id,
            "tenant_id": key.tenant_id,
            "subject": key.subject,
            "wrapped": None if key.wrapped is None else base64.b64encode(key.wrapped).decode(),
            "created_at": key.created_at,
            "closed_at": key.closed_at,
            "shredded_at": key.shredded_at,
        }
    )


def _parsed(document: dict[str, Any]) -> StoredKey:
    wrapped = document["wrapped"]
    return StoredKey(
        id=document["key_id"],
        tenant_id=document["tenant_id"],
        subject=document["subject"],
        wrapped=None if wrapped is None else base64.b64decode(wrapped, validate=True),
        created_at=datetime.fromisoformat(document["created_at"]),
        closed_at=_moment(document["closed_at"]),
        shredded_at=_moment(document["shredded_at"]),
    )


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
