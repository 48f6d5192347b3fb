"""What commands in sandboxes may use, and how much of them a tenant."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_settings import NoDecode

from codeagent import hosts
from codeagent.messages.sandbox_limits import SandboxLimits
from codeagent.messages.values import IMAGE_NAME
from codeagent.quotas.quota import SandboxQuota
from codeagent.sandboxes.images import PLACE
from codeagent.sandboxes.limits import LimitPolicy
from codeagent.sandboxes.protocol import DEFAULT_IMAGE
from codeagent.settings.about import About, Group, parsed


class _Limits(SandboxLimits, extra="forbid"):
    """A misspelt limit must not pass for no limit."""


class _Quota(SandboxQuota, extra="forbid"):
    """As of limits."""


def _named(images: dict[str, str]) -> dict[str, str]:
    """Names that projects can give, each with a place where an image can be."""
    for name, place in images.items():
        if name == DEFAULT_IMAGE:
            raise ValueError(f"{DEFAULT_IMAGE} is what commands see otherwise, and not to be had elsewhere")
        if re.fullmatch(IMAGE_NAME, name) is None:
            raise ValueError(
                "each name should be of lower case letters, digits, `.`, `_` and `-`, and at most 63 of them"
            )
        if re.fullmatch(PLACE, place) is None:
            raise ValueError(f"{name} should be an absolute path, or an image pinned as NAME@sha256:... or sha256:...")
    return images


class SandboxSettings(Group):
    """What commands may use. The same for edges and sandbox workers."""

    sandbox_images: Annotated[
        dict[str, str], NoDecode, BeforeValidator(parsed), AfterValidator(_named), About(unit="images")
    ] = Field(default_factory=dict)
    """JSON object of the images that projects can choose, by name, as in `{"go": "/srv/images/go"}`: for `bwrap` and
    `runsc` the absolute path of a root file system on the sandbox worker's machine, for `podman` and `docker` what
    `CODEAGENT_SANDBOX_IMAGE` takes. `default` is there without being listed: the machine's own /usr, or
    `CODEAGENT_SANDBOX_IMAGE`."""

    sandbox_limits: Annotated[_Limits, NoDecode, BeforeValidator(parsed)] = _Limits()
    """JSON object of limits where nobody says otherwise, as in `{"memory_bytes": 2147483648, "total_commands": 500}`:
    `cpu_millicores` (1000), `memory_bytes` (1 GiB), `processes` (256), `open_files` (1024), `workspace_bytes` (2 GiB),
    `workspace_inodes` (200,000), `dependencies_bytes` (1 GiB) and `output_bytes` (8 MiB) of each command;
    `total_commands`, `total_wall_seconds`, `total_cpu_seconds` and `total_output_bytes` of a run (none)."""
    sandbox_max_limits: Annotated[_Limits, NoDecode, BeforeValidator(parsed)] = _Limits()
    """JSON object of the same limits: the most that a run, an agent or a project may ask for. Of one that is left out
    the default is the most."""
    sandbox_max_command_seconds: int = Field(default=1_800, ge=1, le=1_800)
    """The most that anybody may ask for as the time limit of one command."""
    sandbox_quota: Annotated[_Quota, NoDecode, BeforeValidator(parsed)] = _Quota()
    """JSON object of what each tenant may use, where its own quota does not say: `concurrent` sandboxes, `cpu_seconds`
    and `gib_hours` of memory a day of UTC. One that is left out is not bounded."""

    egress_hosts: Annotated[
        tuple[Annotated[str, AfterValidator(hosts.listed)], ...],
        NoDecode,
        BeforeValidator(parsed),
        Field(max_length=500),
        About(unit="hosts"),
    ] = ()
    """JSON list of hosts, as in `["pypi.org", "*.pythonhosted.org", "registry.example.org:8443"]`, that versions of
    agents may choose from: commands of their runs reach what was chosen, by HTTPS, and nothing else. `*.` stands for
    all names below one. A command reaches no more than what is listed when it begins, whatever its run began with.
    With none, no command reaches anything. Only public addresses are reached, and hosts of `trusted_git_hosts` that are
    listed by name."""

    sandbox_registries: Annotated[
        tuple[Annotated[str, AfterValidator(hosts.listed)], ...],
        NoDecode,
        BeforeValidator(parsed),
        Field(max_length=500),
        About(unit="hosts"),
    ] = ()
    """JSON list of hosts, in the words of `egress_hosts`, that the commands reach which install the dependencies of a
    project, and no other command for that. With none they reach nothing."""
    sandbox_install_seconds: int = Field(default=900, ge=1, le=7_200)
    """How long installing the dependencies of a run may take."""

    def limit_policy(self) -> LimitPolicy:
        most = self.sandbox_max_command_seconds
        return LimitPolicy(self.sandbox_limits, self.sandbox_max_limits, most, self.sandbox_install_seconds)
