"""Which pods of sandboxes there are in a cluster, as operators see them. Looks only, and takes nobody's place."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from codeagent.sandboxes import pods
from codeagent.sandboxes.cluster import Cluster, ClusterApi
from codeagent.sandboxes.kubernetes import OWNER
from codeagent.sandboxes.pod_lifecycle import Pods
from codeagent.sandboxes.protocol import IsolationLevel, SandboxUnavailable
from codeagent.sandboxes.uninterrupted import in_thread


@dataclass(frozen=True, slots=True)
class FoundPod:
    """`own`: of the worker that has, or had, the state directory. `phase` is the cluster's word."""

    name: str
    own: bool
    phase: str
    made_at: datetime


async def survey_pods(state_dir: Path, cluster: Cluster) -> tuple[FoundPod, ...]:
    """Every pod of a sandbox in the namespace, whichever worker's. Raises `SandboxUnavailable` where the settings name
    no cluster, and `SandboxFailure` where it does not answer."""
    if lacks := await in_thread(cluster.missing):
        raise SandboxUnavailable(["sandboxes are in a cluster", *lacks])
    owner, api = await in_thread(_owner, state_dir), ClusterApi(cluster)
    try:
        found = await Pods(api, owner, IsolationLevel.KERNEL).of_everybody()
    finally:
        await api.close()
    return tuple(
        FoundPod(
            name=str(pod["metadata"]["name"]),
            own=bool(owner) and pod["metadata"]["labels"].get(pods.OWNER_LABEL) == owner,
            phase=str(pod.get("status", {}).get("phase", "Unknown")),
            made_at=datetime.fromisoformat(pod["metadata"]["creationTimestamp"]),
        )
        for pod in sorted(found, key=lambda pod: str(pod["metadata"]["name"]))
    )


def _owner(state_dir: Path) -> str:
    """Empty where no worker has had pods from there."""
    try:
        return (state_dir / OWNER).read_text(encoding="ascii")
    except FileNotFoundError:
        return ""
