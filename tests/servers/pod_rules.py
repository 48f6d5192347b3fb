"""What a cluster that is meant for strangers' code demands of every pod, and how it chooses pods by their labels."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def complaints(spec: dict[str, Any], runtime_classes: set[str]) -> list[str]:
    """What a pod lacks of what every sandbox has to have."""
    wanted: dict[str, Any] = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "dnsPolicy": "None",
    }
    found = [name for name, value in wanted.items() if spec.get(name) != value]
    pod = spec.get("securityContext", {})
    if (
        not pod.get("runAsNonRoot")
        or not pod.get("runAsUser")
        or pod.get("seccompProfile", {}).get("type") != "RuntimeDefault"
    ):
        found.append("securityContext")
    if not spec.get("activeDeadlineSeconds") or spec.get("terminationGracePeriodSeconds", 30) > 2:
        found.append("deadlines")
    if "runtimeClassName" in spec and spec["runtimeClassName"] not in runtime_classes:
        found.append(f'RuntimeClass "{spec["runtimeClassName"]}" not found')
    if "runtimeClassName" not in spec and spec.get("hostUsers") is not False:
        found.append("hostUsers")
    for volume in spec.get("volumes", []):
        room = volume.get("emptyDir", {})
        if set(volume) != {"name", "emptyDir"} or room.get("medium") != "Memory" or not room.get("sizeLimit"):
            found.append(f"volume {volume['name']}")
    for box in spec["containers"]:
        found += [f"container {box['name']}: {lack}" for lack in container_complaints(box)]
    return found


def container_complaints(box: dict[str, Any]) -> list[str]:
    context, resources = box.get("securityContext", {}), box.get("resources", {})
    checks = {
        "allowPrivilegeEscalation": context.get("allowPrivilegeEscalation") is False,
        "capabilities": context.get("capabilities") == {"drop": ["ALL"]},
        "readOnlyRootFilesystem": context.get("readOnlyRootFilesystem") is True,
        "privileged": not context.get("privileged"),
        "resources": bool(resources.get("limits")) and resources.get("limits") == resources.get("requests"),
        "amounts": {"cpu", "memory", "ephemeral-storage"} <= set(resources.get("limits", {})),
        "image": "@sha256:" in box.get("image", ""),
        "env": not box.get("env") and not box.get("envFrom"),
    }
    return [name for name, holds in checks.items() if not holds]


def selected(pods: Iterable[dict[str, Any]], selector: str) -> list[dict[str, Any]]:
    """Those whose label is there, or has the value that is asked for."""
    key, equals, value = selector.partition("=")
    labels = [(pod, pod["metadata"]["labels"]) for pod in pods]
    return [pod for pod, has in labels if (has.get(key) == value if equals else key in has)]


def covers(policy: dict[str, Any], labels: dict[str, str]) -> bool:
    """Whether a policy is for a pod, as far as it asks for labels to exist."""
    selector = policy["spec"]["podSelector"]
    asked = selector.get("matchExpressions", [])
    known = set(selector) == {"matchExpressions"} and all(each["operator"] == "Exists" for each in asked)
    return known and all(each["key"] in labels for each in asked)
