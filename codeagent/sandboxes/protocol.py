"""What a sandbox driver promises to the sandbox worker. One file a driver implements it.

A driver runs operations on a workspace, a directory it alone can name. It knows nothing of runs, ledgers or topics.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from pathlib import Path
from typing import ClassVar, Protocol

from codeagent.errors import CodeAgentError


class IsolationLevel(IntEnum):
    """What a deployment may demand as a minimum. A driver never runs below the level it reports."""

    NONE = 0
    RLIMIT = 1
    KERNEL = 2
    OWN_KERNEL = 3


class Reason(StrEnum):
    """How a command ended; exactly one, the first that applies in this order."""

    CANCELED = "canceled"
    OUTPUT_LIMIT = "output_limit"
    TIMEOUT = "timeout"
    OOM = "oom"
    WORKER_LOST = "worker_lost"
    SANDBOX_ERROR = "sandbox_error"
    KILLED = "killed"
    EXIT = "exit"
    OK = "ok"


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one command. Sizes in bytes, times in seconds."""

    wall_seconds: float = 300.0
    cpu_seconds: int = 600
    cpu_cores: float = 1.0
    memory_bytes: int = 1 << 30
    processes: int = 256
    open_files: int = 1024
    file_bytes: int = 512 << 20
    workspace_bytes: int = 2 << 30
    workspace_inodes: int = 200_000
    tmp_bytes: int = 256 << 20
    output_kept_bytes: int = 1 << 20
    output_hard_bytes: int = 8 << 20
    patch_bytes: int = 4 << 20
    patch_files: int = 500
    egress_bytes: int = 256 << 20
    dependencies_bytes: int = 1 << 30


@dataclass(frozen=True, slots=True)
class ExecSpec:
    """A command to run inside. `cwd` is relative to the workspace; `env` adds to the driver's minimal environment.

    `egress`: what it may reach, as `name:port` or `*.name:port` in lower case, by HTTPS through the proxy that its
    environment names; nothing else is reachable, and nothing at all without it.
    """

    argv: tuple[str, ...]
    cwd: str = "."
    env: Mapping[str, str] = field(default_factory=dict)
    stdin: bytes = b""
    limits: Limits = field(default_factory=Limits)
    egress: tuple[str, ...] = ()


DEFAULT_IMAGE = "default"
"""What commands see where nobody says otherwise: the machine's own /usr, or the engine's configured image."""


@dataclass(frozen=True, slots=True)
class Toolchain:
    """What commands of a workspace work with, beside its files. `image`: the name of a root file system that the driver
    was told of. `dependencies`: a plain .tar.gz that lies read-only at /dependencies."""

    image: str = DEFAULT_IMAGE
    dependencies: Path | None = None


DEFAULT_TOOLCHAIN = Toolchain()


class Verdict(StrEnum):
    """What became of a connection that a command asked for."""

    ALLOWED = "allowed"
    UNRESOLVED = "unresolved"
    UNREACHABLE = "unreachable"
    NOT_CONNECT = "not_connect"
    HOST_REFUSED = "host_refused"
    ADDRESS_REFUSED = "address_refused"
    TOO_MANY = "too_many"
    BYTES_USED_UP = "bytes_used_up"

    @property
    def denied(self) -> bool:
        """Whether a rule was against it, rather than the world."""
        return self not in (Verdict.ALLOWED, Verdict.UNRESOLVED, Verdict.UNREACHABLE)


@dataclass(frozen=True, slots=True)
class Connection:
    """A connection through the proxy. `host` is as the command named it; empty where it named none."""

    host: str
    port: int
    verdict: Verdict
    sent_bytes: int
    received_bytes: int


@dataclass(frozen=True, slots=True)
class Rusage:
    """What the processes that were waited for have used, as the kernel tells their parent. A control group knows
    better: it counts those as well that were killed and never waited for."""

    user_seconds: float = 0.0
    system_seconds: float = 0.0
    max_rss_bytes: int = 0


@dataclass(frozen=True, slots=True)
class ExecRecord:
    """What happened. `stdout` and `stderr` are the kept bytes; `*_seen_bytes` count all that was written."""

    reason: Reason
    exit_code: int | None
    signal: int | None
    stdout: bytes
    stderr: bytes
    stdout_seen_bytes: int
    stderr_seen_bytes: int
    limits_hit: tuple[str, ...]
    wall_seconds: float
    cpu_seconds: float
    peak_memory_bytes: int
    driver: str
    level: IsolationLevel
    detail: str = ""
    """For people, when the command did not run at all."""
    rusage: Rusage = field(default_factory=Rusage)
    throttled_seconds: float = 0.0
    oom_kills: int = 0
    peak_processes: int = 0
    """As the control group counted, like `cpu_seconds` and `peak_memory_bytes`; 0 where nobody counted."""
    egress: tuple[Connection, ...] = ()


OutputSink = Callable[[str, bytes], Awaitable[None]]
"""Receives ("stdout" | "stderr", bytes) as they are written: of each the beginning of what the record keeps. Awaiting
it slows the program, not the worker's memory."""


@dataclass(frozen=True, slots=True)
class FileState:
    """A file as a patch leaves it. `blob` names its content ("" once it is deleted, `UNCHANGED` where only its mode
    differs); `mode` is git's; `created` says that the base has no such file."""

    blob: str
    mode: str
    created: bool = False


UNCHANGED = "unchanged"


@dataclass(frozen=True, slots=True)
class Patch:
    """A validated unified git diff of the workspace against its base. `left_out`: files and directories (with a `/` at
    the end) that are new and that it does not carry, since the repository ignores them."""

    text: bytes
    files: tuple[str, ...]
    states: Mapping[str, FileState] = field(default_factory=dict)
    left_out: tuple[str, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class ProbeReport:
    """What the driver proved about itself on this machine, inside a sandbox of its own."""

    driver: str
    version: str
    level: IsolationLevel
    facts: Mapping[str, bool]
    policy_digest: str = ""
    """`sha256:` of what confines a command: system call filters and the options of the sandbox program."""
    images: Mapping[str, str] = field(default_factory=dict)
    """Names of the images beside the default one, each with the policy digest of commands in it."""


@dataclass(frozen=True, slots=True)
class GitCredential:
    """What a git server wants to know before it lets anyone read. The token is shown to that server and nobody else."""

    username: str
    token: str = field(repr=False)


class Workspace(Protocol):
    """One run's files, owned by one claim. Opaque to everyone but its driver. `name` is what its machine's operators
    see it by."""

    @property
    def id(self) -> str: ...

    @property
    def name(self) -> str: ...


class SandboxUnavailable(CodeAgentError):
    """This driver cannot isolate on this machine; `reasons` say why and what to install."""

    code: ClassVar[str] = "sandbox_unavailable"
    status: ClassVar[int] = 503

    def __init__(self, reasons: Sequence[str]) -> None:
        super().__init__("; ".join(reasons))
        self.reasons = tuple(reasons)


class SandboxFailure(CodeAgentError):
    """An operation that could not be done. `retryable` tells whether another attempt may succeed."""

    code: ClassVar[str] = "sandbox_error"
    status: ClassVar[int] = 502

    def __init__(self, detail: str, *, reason: str = "sandbox_error", retryable: bool = True) -> None:
        super().__init__(detail)
        self.reason = reason
        self.retryable = retryable  # type: ignore[misc]


class SandboxDriver(Protocol):
    """Where code runs.

    `probe` raises `SandboxUnavailable` unless isolation and limits were proven. `open` makes a fresh
    workspace holding the files of `archive` (a validated .tar.gz of a plain tree) with `patch` applied
    on top, under a name derived from `workspace_id`; anything left under that name is killed and removed
    first; a toolchain it cannot give is refused (`image_unsupported`, `dependencies_unsupported`, neither retryable),
    and never replaced by another. `run` may be cancelled: the command and all its processes are then gone before it
    returns. `diff` never executes anything the workspace controls. `close` and `reap` are idempotent.
    """

    name: str
    level: IsolationLevel
    reaches_out: bool
    """Whether commands reach the hosts of `ExecSpec.egress`, and those alone. Where they do not, `run` refuses commands
    that have any (`egress_unsupported`)."""

    async def probe(self) -> ProbeReport: ...

    async def open(
        self,
        workspace_id: str,
        archive: Path,
        patch: bytes,
        limits: Limits,
        toolchain: Toolchain = DEFAULT_TOOLCHAIN,
    ) -> Workspace: ...

    async def run(self, workspace: Workspace, spec: ExecSpec, sink: OutputSink) -> ExecRecord: ...

    async def install(self, workspace: Workspace, spec: ExecSpec, destination: Path, sink: OutputSink) -> ExecRecord:
        """As `run`, with the workspace read-only and an empty /dependencies of `dependencies_bytes`. If the command
        ends `ok`, what is there then is written to `destination` as the plain .tar.gz of a `Toolchain`.

        Raises as `run` does, and `SandboxFailure` with reason `dependencies_unsupported` or `dependencies_too_large`.
        """
        ...

    async def read_file(self, workspace: Workspace, path: str, limit_bytes: int) -> bytes:
        """Bytes of a regular file below the workspace. Raises `SandboxFailure` with reason `no_such_file`,
        `not_a_file`, `bad_path` or `too_large`."""
        ...

    async def write_file(self, workspace: Workspace, path: str, data: bytes) -> None:
        """Creates or replaces a regular file, making parent directories. Same failures as `read_file`."""
        ...

    async def diff(self, workspace: Workspace, limits: Limits) -> Patch: ...

    async def close(self, workspace: Workspace) -> None: ...

    async def reap(self, keep: frozenset[str]) -> int:
        """Kills and removes every workspace and process of this driver's state directory whose id is not
        in `keep`; returns how many. Called at start, after a crash."""
        ...

    async def fetch(
        self, url: str, ref: str, destination: Path, limits: Limits, credential: GitCredential | None = None
    ) -> None:
        """Clones one https git URL at `ref` inside a sandbox of its own that may reach that one host only
        (private, loopback and link-local addresses refused), and writes a plain .tar.gz of the tree to
        `destination`. The host is shown `credential` when it asks. Raises `SandboxFailure`."""
        ...
