"""All settings together, and where their values come from."""

from __future__ import annotations

from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from codeagent.settings.audit import AuditSettings
from codeagent.settings.broker import BrokerSettings
from codeagent.settings.credentials import CredentialSettings
from codeagent.settings.http import HttpSettings
from codeagent.settings.operations import OperationSettings
from codeagent.settings.sandbox import SandboxSettings
from codeagent.settings.storage import StorageSettings
from codeagent.settings.traffic import TrafficSettings
from codeagent.settings.variables import FormerNames, ProfileDefaults, SecretFiles
from codeagent.settings.webhooks import WebhookSettings
from codeagent.settings.work import WorkSettings

GROUPS = (
    OperationSettings,
    StorageSettings,
    BrokerSettings,
    HttpSettings,
    TrafficSettings,
    WorkSettings,
    SandboxSettings,
    WebhookSettings,
    CredentialSettings,
    AuditSettings,
)
"""In the order in which they are documented."""


class Settings(
    AuditSettings,
    CredentialSettings,
    WebhookSettings,
    SandboxSettings,
    WorkSettings,
    TrafficSettings,
    HttpSettings,
    BrokerSettings,
    StorageSettings,
    OperationSettings,
    BaseSettings,
):
    """Made by `read_settings`, which refuses what does not fit and every variable that is no setting.

    Secrets may be references, which the composition root resolves.
    """

    model_config = SettingsConfigDict(
        env_prefix="CODEAGENT_",
        extra="forbid",
        frozen=True,
        env_ignore_empty=True,
        hide_input_in_errors=True,
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What is given, then the environment, then the defaults of the profile."""
        return (
            init_settings,
            env_settings,
            SecretFiles(settings_cls),
            FormerNames(settings_cls),
            ProfileDefaults(settings_cls),
        )
