"""Compares the pod that a cluster has made with the one it was asked for."""

from __future__ import annotations

from typing import Any

from codeagent.sandboxes.protocol import SandboxFailure

_AMOUNTS = frozenset({"cpu", "memory", "ephemeral-storage", "sizeLimit"})
_POD = ("runtimeClassName", "hostUsers", "automountServiceAccountToken", "dnsPolicy", "securityContext", "volumes")
_NEVER_IN_POD = ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace", "initContainers", "ephemeralContainers")
_CONTAINER = ("name", "image", "command", "resources", "volumeMounts")
_NEVER_IN_CONTAINER = ("args", "env", "envFrom", "lifecycle", "livenessProbe", "startupProbe", "volumeDevices")


def check(asked: dict[str, Any], made: dict[str, Any]) -> None:
    """Raises `SandboxFailure` (`pod_refused`) if the specification `made` is weaker than the one that was `asked` for.

    An API server that does not know a field drops it without a word; an admission hook may change one, and may add a
    container, a volume or a variable that holds a secret. Further defaults are the cluster's own.
    """
    changed = [name for name in _POD if not _keeps(made.get(name), asked.get(name))]
    changed += [name for name in _NEVER_IN_POD if made.get(name)]
    containers = made.get("containers", [])
    if len(containers) != len(asked["containers"]):
        changed.append("containers")
    for got, wanted in zip(containers, asked["containers"], strict=False):
        changed += [name for name in _CONTAINER if not _keeps(got.get(name), wanted.get(name))]
        changed += [name for name in _NEVER_IN_CONTAINER if got.get(name)]
        if got.get("securityContext") != wanted["securityContext"]:  # what is added there could only weaken it
            changed.append("securityContext")
    if changed:
        why = f"the cluster does not keep what a pod was asked to be: {', '.join(dict.fromkeys(changed))}"
        raise SandboxFailure(why, reason="pod_refused", retryable=False)


def _keeps(made: Any, asked: Any) -> bool:
    """Amounts are compared by being there: the cluster may write them another way. Lists keep their length."""
    if isinstance(asked, dict):
        return isinstance(made, dict) and all(
            name in made and (name in _AMOUNTS or _keeps(made[name], value)) for name, value in asked.items()
        )
    if isinstance(asked, list):
        return (
            isinstance(made, list)
            and len(made) == len(asked)
            and all(_keeps(got, wanted) for got, wanted in zip(made, asked, strict=True))
        )
    return bool(made == asked)
