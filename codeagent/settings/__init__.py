"""Every setting, typed and explained. Read from the environment (`CODEAGENT_*`) by the composition root only."""

from codeagent.settings.http import ApiKeyEntry
from codeagent.settings.model import Settings
from codeagent.settings.problems import Misconfigured, Problem
from codeagent.settings.profiles import Environment, Risk
from codeagent.settings.reading import inspect_settings, read_settings
from codeagent.settings.variables import NOT_SETTINGS
from codeagent.settings.work import TrustedGitHost

__all__ = [
    "NOT_SETTINGS",
    "ApiKeyEntry",
    "Environment",
    "Misconfigured",
    "Problem",
    "Risk",
    "Settings",
    "TrustedGitHost",
    "inspect_settings",
    "read_settings",
]
