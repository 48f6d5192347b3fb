"""Models, sandboxes, and how much a worker does at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_settings import NoDecode

from codeagent.mcp.servers import McpServerSettings, named_once
from codeagent.providers.registry import ProviderSettings, parse_providers
from codeagent.sandboxes.cluster import SERVICE_ACCOUNT
from codeagent.sandboxes.engine import PINNED
from codeagent.settings.about import About, Group, parsed


class TrustedGitHost(BaseModel):
    """A host that runs may fetch from although its address is not public, such as an internal git server."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$")
    """As URLs name it. Whatever it resolves to is believed."""
    port: int = Field(default=443, ge=1, le=65535)
    certificates: Path | None = None
    """PEM file of the authority that signed its certificate, on the sandbox worker's machine; none: the usual ones."""


class WorkSettings(Group):
    """What the workers work with."""

    providers_file: Annotated[Path | None, About(reloads="API keys in it: within a second; the list: at a restart")] = (
        None
    )
    """JSON list of model providers. `builtin/repair` is there without one. Its `api_key` may be a reference to a
    secret, and `api_key_file` is read for every call."""
    default_model: str = Field(default="builtin/repair", min_length=3, max_length=200)
    """Model of runs that name none."""
    default_fallbacks: Annotated[
        tuple[str, ...], NoDecode, BeforeValidator(parsed), Field(max_length=4), About(unit="models")
    ] = ()
    """JSON list of the models that stand in for the default one, in their order, where it cannot answer."""
    provider_slots: Annotated[int, About(unit="calls")] = Field(default=32, ge=1, le=1000)
    """Model calls at once in one provider worker."""
    record_calls: bool = False
    """Whether provider workers keep all that models are asked and reply, as artifacts of the tenant that its runs'
    calls name. They hold source code and whatever persons have written, and each call has the whole conversation."""
    mcp_servers: Annotated[
        tuple[McpServerSettings, ...],
        NoDecode,
        AfterValidator(named_once),
        BeforeValidator(parsed),
        About(unit="servers", reloads="a token: read for every call"),
    ] = ()
    """JSON list of the servers whose tools agents' versions may use by the Model Context Protocol, as in `[{"name":
    "docs", "url": "https://mcp.example.com/mcp", "bearer_token_file": "/run/secrets/docs", "read_only": ["search"],
    "tenants": ["ten_..."]}]`, the same for edges and provider workers; see docs/mcp.md."""
    mcp_slots: Annotated[int, About(unit="calls")] = Field(default=16, ge=1, le=1000)
    """Calls of such tools at once in one provider worker."""
    sandbox_slots: Annotated[int, About(unit="operations")] = Field(default=4, ge=1, le=200)
    """Operations at once in one sandbox worker."""
    sandbox_idle_seconds: Annotated[float, About(unit="seconds")] = Field(default=900.0, ge=1.0, le=86_400.0)
    """How long a sandbox worker keeps a workspace that nothing runs in, such as that of a run which waits for a person.
    The run goes on from its checkpoint."""
    sandbox_workspaces: Annotated[int, About(unit="workspaces")] = Field(default=32, ge=1, le=1000)
    """Workspaces a sandbox worker keeps between operations."""
    sandbox_parked: Annotated[int, About(unit="sandboxes")] = Field(default=1, ge=0, le=1)
    """Sandboxes started ahead for the next command of each workspace. One costs about 2 MiB; 0 starts each command's
    own when it comes, which takes longer."""
    trusted_git_hosts: Annotated[
        tuple[TrustedGitHost, ...], NoDecode, BeforeValidator(parsed), About(unit="hosts")
    ] = ()
    """JSON list of hosts, as in `[{"host": "git.example.internal", "port": 8443, "certificates": "/etc/ssl/ca.pem"}]`,
    that runs may fetch from although their addresses are not public; commands too, where `egress_hosts` lists them. The
    same for edges and sandbox workers. With none, only public addresses are fetched from."""
    sandbox_minimum_level: Annotated[int, About(unit="level")] = Field(ge=1, le=3)
    """Isolation without which a sandbox worker does not start: 1 namespaces and seccomp, 2 with group limits and a
    user id of its own, 3 a kernel of its own."""
    sandbox_driver: str = Field(default="auto", pattern="^[a-z]{2,20}$")
    """The only driver that sandbox workers use, by its name in docs/sandboxes.md; `auto` takes the cheapest that
    isolates at the minimum level."""
    sandbox_image: str = Field(default="", pattern=rf"^({PINNED})?$", max_length=500)
    """What the drivers `docker`, `podman` and `kubernetes` make sandboxes of, pinned: `NAME@sha256:...`, or, for an
    engine, the id of an image. An engine never pulls it, a cluster does."""
    sandbox_engine_arguments: Annotated[tuple[str, ...], NoDecode, BeforeValidator(parsed), About(unit="words")] = ()
    """JSON list of words for every request to the container engine, as in `["--host", "unix:///run/docker.sock"]` or
    `["--cgroup-manager=cgroupfs"]`."""
    sandbox_engine_runtime: str = Field(default="", pattern="^[A-Za-z0-9._-]{0,100}$")
    """The OCI runtime of the container engine, by the name it has there; `runsc` gives sandboxes a kernel of their own.
    Empty: the engine's usual one."""
    sandbox_kubernetes_namespace: str = Field(
        default="codeagent-sandboxes", pattern="^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
    )
    """Where the driver `kubernetes` makes its pods and their network policy."""
    sandbox_kubernetes_runtime_class: str = Field(default="gvisor", pattern="^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")
    """The RuntimeClass of pods with a kernel of their own. Where the cluster has none of that name, no pod is made."""
    sandbox_kubernetes_url: str = Field(default="", pattern="^(https?://[^/?#@]+)?$", max_length=500)
    """The API server; empty: the one of the cluster that the worker runs in."""
    sandbox_kubernetes_credentials: Path = SERVICE_ACCOUNT
    """Directory of `token` and `ca.crt` for the API server. Both are read again when they change."""
    sandbox_helper: Path | None = None
    """Socket of the `codeagent sandboxd` of this machine, which then makes the sandboxes, so that the sandbox worker
    needs no root. Without it the worker makes them itself."""
    lease_seconds: float = Field(default=30.0, ge=1, le=600)
    """How long a silent worker keeps an effect before another takes it. Shorter renews more often."""
    max_attempts: Annotated[int, About(unit="claims")] = Field(default=4, ge=1, le=20)
    """Claims of one effect before it ends `worker_lost`."""
    worker_name: str = Field(default="", max_length=100)
    """A name that this process alone has, also after a restart: what its dead predecessor had claimed is then taken
    back at once. Empty: a random one."""
    drain_seconds: float = Field(default=10.0, ge=0, le=600)
    """How long a process that is asked to stop may finish what it has begun."""

    def providers(self) -> list[ProviderSettings]:
        """The configured providers. Raises `ValueError` naming what is wrong with the file, `OSError` without it."""
        if self.providers_file is None:
            return []
        return parse_providers(self.providers_file.read_bytes())
