"""The settings of `codeagent up`: where its own servers stand in for what the environment does not name."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codeagent.cli.connection import SETTINGS_FILE
from codeagent.cli.kek_file import KEK_FILE
from codeagent.cli.log_key_file import LOG_KEY_FILE
from codeagent.cli.secrets import SECRETS, portable_secrets
from codeagent.cli.subject_keys import KEYS_DIRECTORY
from codeagent.embedded.directories import write_atomically
from codeagent.settings import Settings, read_settings

DATABASE_VARIABLES = ("CODEAGENT_DATABASE_URL", "CODEAGENT_DATABASE_URL_FILE")
KEK_VARIABLES = ("CODEAGENT_KEK", "CODEAGENT_KEK_FILE")
SUBJECT_KEY_VARIABLES = (
    "CODEAGENT_SUBJECT_KEYS_DIR",
    "CODEAGENT_SUBJECT_KEYS_URL",
    "CODEAGENT_SUBJECT_KEYS_URL_FILE",
)
LOG_KEY_VARIABLES = ("CODEAGENT_AUDIT_SIGNING_KEY", "CODEAGENT_AUDIT_SIGNING_KEY_FILE")
ANCHOR_VARIABLE = "CODEAGENT_AUDIT_ANCHOR_DIR"
KAFKA_VARIABLE = "CODEAGENT_KAFKA_BOOTSTRAP_SERVERS"

EMBEDDED_KAFKA: dict[str, Any] = {
    "kafka_bootstrap_servers": "not-started-yet:0",
    "kafka_idempotent": False,
    "kafka_fetch_wait_ms": 2,
    "kafka_sole_member": True,
    "kafka_replication": 1,
    "durable_accept": True,
}
"""How every process meets the embedded broker. Another one is met as the environment says."""


@dataclass(frozen=True, slots=True)
class UpOptions:
    """What the person who starts it has a say in. Port 0 takes the last one used, or any free one."""

    data_dir: Path
    host: str = "127.0.0.1"
    port: int = 0
    level: int = 2
    providers_file: Path | None = None
    default_model: str = "builtin/repair"
    quiet: bool = False


def is_named(variables: Iterable[str]) -> bool:
    """Whether the environment says anything about one of them."""
    return any(os.environ.get(name) for name in variables)


def up_settings(options: UpOptions) -> Settings:
    """Everything but where an embedded database and broker are. Raises `Misconfigured`."""
    overrides: dict[str, Any] = {
        "topics_profile": "dev",
        "artifacts_dir": options.data_dir / "artifacts",
        "sandbox_dir": options.data_dir / "sandboxes",
        "api_keys_file": options.data_dir / "api-keys.json",
        "sandbox_minimum_level": options.level,
        "default_model": options.default_model,
    }
    if not is_named(DATABASE_VARIABLES):
        overrides["database_url"] = "postgresql://not-started-yet"
    if not is_named(KEK_VARIABLES):
        overrides["kek"] = f"file:{options.data_dir / KEK_FILE}"
    if not is_named(SUBJECT_KEY_VARIABLES):
        overrides["subject_keys_dir"] = options.data_dir / KEYS_DIRECTORY
    if not is_named(LOG_KEY_VARIABLES):
        overrides["audit_signing_key"] = f"file:{options.data_dir / LOG_KEY_FILE}"
    if not os.environ.get(ANCHOR_VARIABLE):
        overrides["audit_anchor_dir"] = options.data_dir / "checkpoints"
    if not os.environ.get(KAFKA_VARIABLE):
        overrides |= EMBEDDED_KAFKA
    if options.providers_file is not None:
        overrides["providers_file"] = options.providers_file
    return read_settings(**overrides)


def write_settings(options: UpOptions, settings: Settings) -> None:
    """For operators' commands on this data directory: they need the database and the broker as well."""
    values = settings.model_dump(mode="json", exclude_none=True, exclude=set(SECRETS))
    write_atomically(options.data_dir / SETTINGS_FILE, json.dumps(values | portable_secrets(settings), indent=2))
