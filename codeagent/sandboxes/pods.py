"""The objects a sandbox consists of: a pod with everything turned off that a cluster would add, and its network policy.

A pod has two containers with a process namespace each. `commands` runs what the workspace's owner asks for;
`repository` alone sees the base that differences are told against, and runs git and the driver's file access.
"""

from __future__ import annotations

import math
from typing import Any

from codeagent.sandboxes import repository
from codeagent.sandboxes.box import HOME, SMALL_TMPFS_BYTES, WORKSPACE
from codeagent.sandboxes.protocol import IsolationLevel, Limits

OWNER_LABEL = "codeagent.dev/sandbox-owner"
ID_LABEL = "codeagent.dev/sandbox-workspace"
COMMANDS = "commands"
REPOSITORY = "repository"
TMP = "/tmp"  # noqa: S108  # the sandbox's own
POD_SECONDS = 6 * 3600
"""A pod ends by itself after this long: its worker may be gone for good."""
_UID = 1000
_REPOSITORY_BYTES = 256 << 20
POLICY = "codeagent-sandboxes"

# Children that are left to it vanish without being waited for, since an ignored SIGCHLD outlives exec; those that came
# before are waited for here. The shell cannot ignore it.
_IDLE = """import os, signal
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
try:
    while os.waitpid(-1, os.WNOHANG)[0]: pass
except ChildProcessError: pass
os.execvp('sleep', ['sleep', 'infinity'])"""
_FIRST_PROCESS = ["python3", "-I", "-c", _IDLE]


def pod(
    name: str, labels: dict[str, str], image: str, limits: Limits, level: IsolationLevel, runtime_class: str
) -> dict[str, Any]:
    """The manifest. What lies in the memory volumes counts as memory of the container that wrote it."""
    own_kernel = level is IsolationLevel.OWN_KERNEL
    room = limits.workspace_bytes + limits.tmp_bytes + SMALL_TMPFS_BYTES
    base = limits.workspace_bytes
    commands = {"workspace": WORKSPACE, "tmp": TMP, "home": HOME}
    repository_mounts = {"workspace": WORKSPACE, "base": repository.INSIDE, "repository-tmp": TMP}
    spec: dict[str, Any] = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "restartPolicy": "Always",
        "activeDeadlineSeconds": POD_SECONDS,
        "terminationGracePeriodSeconds": 1,
        "hostname": "sandbox",
        "dnsPolicy": "None",
        # A resolver has to be named; nobody listens at this one.
        "dnsConfig": {"nameservers": ["127.0.0.1"]},
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _UID,
            "runAsGroup": _UID,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            _container(COMMANDS, image, limits.memory_bytes + room, limits.cpu_cores, commands),
            _container(REPOSITORY, image, _REPOSITORY_BYTES + room + base, 1.0, repository_mounts),
        ],
        "volumes": [
            _volume("workspace", limits.workspace_bytes),
            _volume("tmp", limits.tmp_bytes),
            _volume("home", SMALL_TMPFS_BYTES),
            _volume("base", base),
            _volume("repository-tmp", max(limits.tmp_bytes, limits.patch_bytes)),
        ],
    }
    # A user namespace keeps the pod's users apart from the node's; gVisor's kernel knows no users of the node.
    spec |= {"runtimeClassName": runtime_class} if own_kernel else {"hostUsers": False}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec}


def _container(name: str, image: str, memory_bytes: int, cores: float, mounts: dict[str, str]) -> dict[str, Any]:
    amounts = {
        "cpu": f"{max(10, math.ceil(cores * 1000))}m",
        "memory": str(memory_bytes),
        # Nothing is written to the node's disk.
        "ephemeral-storage": str(16 << 20),
    }
    return {
        "name": name,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": _FIRST_PROCESS,
        "resources": {"requests": amounts, "limits": amounts},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "privileged": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
        },
        "volumeMounts": [{"name": volume, "mountPath": path} for volume, path in mounts.items()],
    }


def _volume(name: str, size_bytes: int) -> dict[str, Any]:
    return {"name": name, "emptyDir": {"medium": "Memory", "sizeLimit": str(size_bytes)}}


def network_policy() -> dict[str, Any]:
    """Nothing reaches the pods of whatever owner, and they reach nothing."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": POLICY},
        "spec": {
            "podSelector": {"matchExpressions": [{"key": OWNER_LABEL, "operator": "Exists"}]},
            "policyTypes": ["Ingress", "Egress"],
        },
    }
