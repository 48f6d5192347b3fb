"""Who the services of `up` are when root has started it, and that what they work with is theirs."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import codeagent
from codeagent.cli.kek_file import KEK_FILE
from codeagent.cli.log_key_file import LOG_KEY_FILE
from codeagent.cli.secrets import references
from codeagent.embedded.accounts import SERVICES_UID, Account, first_unreadable, require_reachable, service_account
from codeagent.embedded.demotion import Demotion
from codeagent.embedded.directories import make_directory
from codeagent.embedded.sandboxd import EmbeddedSandboxd
from codeagent.sandboxes.kubernetes import KubernetesDriver
from codeagent.sandboxes.limits import applied
from codeagent.secrets.references import InFile
from codeagent.settings import Settings
from codeagent.telemetry.logs import get_logger

log = get_logger(__name__)
_FILES = ("api-keys.json", KEK_FILE, LOG_KEY_FILE)
"""Of a data directory, that services read: made by root, given to them."""


def demotion_of_services(settings: Settings, data_dir: Path) -> Demotion | None:
    """What services become; `None` where we are not root. Artifacts that belong to somebody decide who.

    Raises `Rejected` where that account cannot get into the data directory.
    """
    artifacts = settings.artifacts_dir
    account = service_account(SERVICES_UID, artifacts)
    if account is None:
        return None
    require_reachable(artifacts, account)
    for directory in (artifacts, settings.audit_anchor_dir, settings.subject_keys_dir):
        if directory is not None:
            make_directory(directory)
            _hand_over(directory, account)
    if settings.sandbox_driver == KubernetesDriver.name:
        make_directory(settings.sandbox_dir)
        _hand_over(settings.sandbox_dir, account)
    for name in _FILES:
        if (data_dir / name).exists():
            os.chown(data_dir / name, account.uid, account.gid)
    closed = first_unreadable([*_program(), *_named(settings)], account)
    if closed is not None:
        log.warning(
            "services.read_everything",
            why=f"user id {account.uid}, which they run as, cannot read {closed}",
            cure="let it be read by everyone, or install CodeAgent where everyone may pass, such as /opt",
        )
    return Demotion(account, reads_all=closed is not None)


def helper_of_worker(settings: Settings, data_dir: Path, demotion: Demotion | None) -> EmbeddedSandboxd | None:
    """What makes the sandboxes of a worker that gives up root. The worker of a person makes its own, and pods are made
    by no root of this machine."""
    if demotion is None or settings.sandbox_driver == KubernetesDriver.name:
        return None
    return EmbeddedSandboxd(data_dir, demotion.account, arguments_of_helper(settings))


def arguments_of_helper(settings: Settings) -> tuple[str, ...]:
    """What the settings say of sandboxes, as the helper is told it."""
    hosts = [host.model_dump(mode="json") for host in settings.trusted_git_hosts]
    policy = settings.limit_policy()
    most = applied(policy.most)
    most = replace(most, wall_seconds=max(most.wall_seconds, float(policy.command_seconds)))
    return (
        *("--minimum-level", str(settings.sandbox_minimum_level), "--driver", settings.sandbox_driver),
        *("--parked", str(settings.sandbox_parked), "--image", settings.sandbox_image),
        *("--engine-arguments", json.dumps(settings.sandbox_engine_arguments)),
        *("--engine-runtime", settings.sandbox_engine_runtime),
        *("--images", json.dumps(settings.sandbox_images)),
        *("--registries", json.dumps(settings.sandbox_registries)),
        *("--install-seconds", str(policy.install_seconds)),
        *("--trusted-hosts", json.dumps(hosts), "--egress-hosts", json.dumps(settings.egress_hosts)),
        *("--most", ",".join(f"{name}={value}" for name, value in asdict(most).items())),
    )


def _hand_over(directory: Path, account: Account) -> None:
    """The directory last: one that was not finished belongs to root still, and is gone through again."""
    if directory.stat().st_uid == account.uid:
        return
    for folder, folders, files in os.walk(directory):
        for name in (*folders, *files):
            os.chown(Path(folder, name), account.uid, account.gid, follow_symlinks=False)
    os.chown(directory, account.uid, account.gid)
    directory.chmod(0o770)


def _program() -> list[Path]:
    """This program and what it imports, also later."""
    places = (codeagent.__file__, sys.prefix, sys.base_prefix, os.__file__, *sys.path)
    return [Path(place) for place in places if place]


def _named(settings: Settings) -> Iterator[Path]:
    """The files that settings name."""
    for value in (getattr(settings, name) for name in type(settings).model_fields):
        if isinstance(value, Path) and value not in {settings.sandbox_dir, settings.backup_dir}:
            yield value
    yield from (where.path for where in references(settings)[0].values() if isinstance(where, InFile))
    yield from (host.certificates for host in settings.trusted_git_hosts if host.certificates is not None)
    for server in settings.mcp_servers:
        yield from (path for path in (server.certificates, server.bearer_token_file) if path is not None)
    for provider in settings.providers():
        if provider.api_key_file is not None:
            yield provider.api_key_file
