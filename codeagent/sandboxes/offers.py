"""The drivers this build has, and what each guarantees. A further one is a further line of `OFFERS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from codeagent.sandboxes.bwrap import Bubblewrap, BubblewrapDriver
from codeagent.sandboxes.cluster import Cluster
from codeagent.sandboxes.containers import ContainerDriver, ContainerEngine
from codeagent.sandboxes.engine import OWN_KERNEL_RUNTIME, EngineName, EngineOptions
from codeagent.sandboxes.kubernetes import KubernetesDriver
from codeagent.sandboxes.local import SLOT_UIDS
from codeagent.sandboxes.protocol import IsolationLevel, ProbeReport, SandboxDriver
from codeagent.sandboxes.runsc import Runsc, RunscDriver
from codeagent.sandboxes.sources import TrustedHost


@dataclass(frozen=True, slots=True)
class Containers:
    """What container engines are told, as in `EngineOptions`."""

    image: str = ""
    arguments: tuple[str, ...] = ()
    runtime: str = ""


@dataclass(frozen=True, slots=True)
class Host:
    """What every driver is told. `state_dir` is its alone; `programs`: paths of sandbox programs by driver's name,
    where they are not to be looked for; `images` by name, each the path of a root file system or what an engine knows
    it by; the rest is as in `LocalDriver`."""

    state_dir: Path
    runtimes: tuple[Path, ...] = ()
    slot_uids: range = SLOT_UIDS
    trusted_hosts: tuple[TrustedHost, ...] = ()
    programs: Mapping[str, str] = field(default_factory=dict)
    parked: bool = True
    containers: Containers = Containers()
    cluster: Cluster = field(default_factory=Cluster)
    images: Mapping[str, str] = field(default_factory=dict)


class OfferedDriver(SandboxDriver, Protocol):
    """A driver that can be chosen: what it has proven once, it can be asked to prove again."""

    @property
    def ready(self) -> bool:
        """Whether what makes its sandboxes is there now."""
        ...

    async def probe(self, *, again: bool = False) -> ProbeReport:
        """As `SandboxDriver.probe`. `again`: it is proven anew, whatever is remembered."""
        ...

    async def fingerprint(self) -> str:
        """Changes when something that was proven may no longer hold: kernel, program, how the driver is set up."""
        ...

    async def shutdown(self) -> None:
        """Closes every workspace and gives the state directory back. The driver can be used again afterwards."""
        ...


@dataclass(frozen=True, slots=True)
class Offer:
    """A driver at one of its levels. `missing` says, without starting a sandbox, why it cannot work here; blocking.
    `automatic`: it may be chosen where no driver is named."""

    name: str
    level: IsolationLevel
    guarantee: str
    make: Callable[[Host], OfferedDriver]
    missing: Callable[[Path], Sequence[str]]
    automatic: bool = True


def _bwrap(level: IsolationLevel) -> Callable[[Host], OfferedDriver]:
    def make(host: Host) -> OfferedDriver:
        path = host.programs.get("bwrap")
        return BubblewrapDriver(
            host.state_dir,
            level,
            host.runtimes,
            host.slot_uids,
            path,
            trusted_hosts=host.trusted_hosts,
            parked=host.parked,
            images=host.images,
        )

    return make


def _runsc(host: Host) -> OfferedDriver:
    path = host.programs.get("runsc")
    return RunscDriver(
        host.state_dir,
        host.runtimes,
        host.slot_uids,
        path,
        trusted_hosts=host.trusted_hosts,
        images=host.images,
    )


def _engine(name: EngineName, level: IsolationLevel) -> Offer:
    """Never chosen unasked: an engine is one more program of this machine that is root."""
    own_kernel = level is IsolationLevel.OWN_KERNEL

    def make(host: Host) -> OfferedDriver:
        told = host.containers
        runtime = OWN_KERNEL_RUNTIME if own_kernel else told.runtime
        options = EngineOptions(name, told.image, told.arguments, runtime, host.programs.get(name, ""), host.images)
        return ContainerDriver(host.state_dir, options, host.slot_uids, trusted_hosts=host.trusted_hosts)

    guarantee = "a hardened container for each command, of an image pinned by digest"
    return Offer(
        name,
        level,
        f"{guarantee}; under gVisor, a kernel of its own" if own_kernel else f"{guarantee}; shares the kernel",
        make,
        lambda state_dir: ContainerEngine(state_dir, EngineOptions(name)).missing(),
        automatic=False,
    )


def _kubernetes(level: IsolationLevel) -> Offer:
    """Never chosen unasked: whether a cluster is meant for strangers' code, only its operator knows."""
    own_kernel = level is IsolationLevel.OWN_KERNEL
    guarantee = "a hardened pod for each workspace, of an image pinned by digest, without network"
    return Offer(
        "kubernetes",
        level,
        f"{guarantee}; under gVisor, a kernel of its own" if own_kernel else f"{guarantee}; shares the node's kernel",
        lambda host: KubernetesDriver(host.state_dir, host.cluster, level),
        lambda _: () if Cluster().address else ("there is no cluster around this process",),
        automatic=False,
    )


OFFERS: tuple[Offer, ...] = (
    Offer(
        "bwrap",
        IsolationLevel.KERNEL,
        "namespaces, filtered system calls, limits of the whole command, a user of its own; shares the kernel",
        _bwrap(IsolationLevel.KERNEL),
        lambda state_dir: Bubblewrap(state_dir, IsolationLevel.KERNEL).missing(),
    ),
    Offer(
        "runsc",
        IsolationLevel.OWN_KERNEL,
        "a kernel of its own in front of all that; a bug in the machine's kernel is out of reach",
        _runsc,
        lambda state_dir: Runsc(state_dir).missing(),
    ),
    Offer(
        "bwrap",
        IsolationLevel.RLIMIT,
        "namespaces and filtered system calls; limits of each process alone, no user of its own when not root",
        _bwrap(IsolationLevel.RLIMIT),
        lambda state_dir: Bubblewrap(state_dir, IsolationLevel.RLIMIT).missing(),
    ),
    _engine("podman", IsolationLevel.KERNEL),
    _engine("podman", IsolationLevel.OWN_KERNEL),
    _engine("docker", IsolationLevel.KERNEL),
    _engine("docker", IsolationLevel.OWN_KERNEL),
    _kubernetes(IsolationLevel.KERNEL),
    _kubernetes(IsolationLevel.OWN_KERNEL),
)
"""In the order in which they are tried where none is named: the cheapest first of those that isolate enough."""
