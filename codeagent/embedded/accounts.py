"""Which unprivileged account servers and services run as when CodeAgent itself is root, and what that can get at."""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from codeagent.errors import Rejected

# Ids outside every range that distributions hand out, one a server, so that neither can read the other's files.
POSTGRES_UID = 60917
BROKER_UID = 60918
SERVICES_UID = 60919
_FALLBACK_UID = 65534


@dataclass(frozen=True, slots=True)
class Account:
    """A numeric user and group; it needs no entry in the host's account database."""

    uid: int
    gid: int


def service_account(preferred_uid: int, existing_data: Path) -> Account | None:
    """The account to switch to, or None to stay as we are because we are not root.

    Data that already belongs to somebody keeps its owner. Raises Rejected when root has no other id to switch to.
    """
    if os.geteuid() != 0:
        return None
    if existing_data.exists():
        owner = existing_data.stat()
        if owner.st_uid != 0:
            return Account(owner.st_uid, owner.st_gid)
    for uid in (preferred_uid, _FALLBACK_UID):
        if _is_mapped(uid, "uid") and _is_mapped(uid, "gid"):
            return Account(uid, uid)
    raise Rejected(
        "this container maps no user id but root, and PostgreSQL refuses to run as root: start CodeAgent as a normal "
        "user, or set CODEAGENT_DATABASE_URL and CODEAGENT_KAFKA_BOOTSTRAP_SERVERS",
        code="no_unprivileged_account",
    )


def named_account(account: Account | None) -> Account | None:
    """`account` if the host knows its name, else any named unprivileged one: initdb insists on a name."""
    if account is None:
        return None
    entries = [entry for entry in pwd.getpwall() if entry.pw_uid != 0 and _is_mapped(entry.pw_uid, "uid")]
    entries.sort(key=lambda entry: (entry.pw_uid != account.uid, entry.pw_name != "nobody"))
    if not entries:
        raise Rejected(
            "the host's account database has no unprivileged user, which initdb needs: start CodeAgent as a normal "
            "user, or set CODEAGENT_DATABASE_URL",
            code="no_unprivileged_account",
        )
    chosen = entries[0]
    return account if chosen.pw_uid == account.uid else Account(chosen.pw_uid, chosen.pw_gid)


def account_of(name: str) -> Account | None:
    """The account of that name, where the host has it."""
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    return Account(entry.pw_uid, entry.pw_gid)


def first_barrier(path: Path, account: Account | None) -> Path | None:
    """The outermost directory above `path` that `account` may not pass through, or None when it gets to `path`."""
    if account is None:
        return None
    for directory in reversed(path.resolve().parents):
        if directory.exists() and not _may_execute(directory, account):
            return directory
    return None


def first_unreadable(paths: Iterable[Path], account: Account) -> Path | None:
    """The first of the paths that `account` may not read, or the directory that keeps it out; what is missing counts
    as readable."""
    for path in paths:
        if not path.exists():
            continue
        barrier = first_barrier(path, account)
        if barrier is not None or not _may(path.resolve(), account, stat.S_IROTH):
            return barrier or path
    return None


def may_run(executable: Path, account: Account | None) -> bool:
    """Whether `account` (None: this process) can execute the file, its directories included."""
    if account is None:
        return os.access(executable, os.X_OK)
    return first_barrier(executable, account) is None and _may_execute(executable.resolve(), account)


def require_reachable(path: Path, account: Account | None) -> None:
    """Raises Rejected (`data_dir_unreachable`) naming the directory that keeps `account` out of `path`."""
    barrier = first_barrier(path, account)
    if barrier is not None and account is not None:
        raise Rejected(
            f"started as root, CodeAgent runs its servers as user id {account.uid}, which cannot pass through "
            f"{barrier} to {path}: let everyone pass it (chmod o+x), or choose another data directory, such as "
            "/var/lib/codeagent",
            code="data_dir_unreachable",
        )


def _may_execute(path: Path, account: Account) -> bool:
    return _may(path, account, stat.S_IXOTH)


def _may(path: Path, account: Account, bit: int) -> bool:
    """`bit` as others have it; its owner's and its group's are three and six places above."""
    info = path.stat()
    places = 6 if info.st_uid == account.uid else 3 if info.st_gid == account.gid else 0
    return bool(info.st_mode & (bit << places))


def _is_mapped(number: int, kind: str) -> bool:
    """Whether the id exists in this user namespace; in one without a map file, every id does."""
    try:
        lines = Path(f"/proc/self/{kind}_map").read_text().splitlines()
    except OSError:
        return True
    ranges = ([int(part) for part in line.split()] for line in lines)
    return any(first <= number < first + count for first, _outside, count in ranges)
