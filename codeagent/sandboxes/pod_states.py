"""Reads a pod's status: whether it can be used, and why it cannot or no longer can."""

from __future__ import annotations

from typing import Any

from codeagent.sandboxes.outcome import last_words
from codeagent.sandboxes.pods import COMMANDS
from codeagent.sandboxes.protocol import SandboxFailure

# Reasons a container waits that waiting longer does not mend: ours, and whether another attempt may succeed.
_HOPELESS = {
    "ErrImageNeverPull": ("image_missing", False),
    "InvalidImageName": ("image_missing", False),
    "ErrImagePull": ("image_missing", True),
    "ImagePullBackOff": ("image_missing", True),
    "CreateContainerConfigError": ("start_failed", False),
    "CreateContainerError": ("start_failed", True),
    "RunContainerError": ("start_failed", True),
    "StartError": ("start_failed", True),
    "CrashLoopBackOff": ("start_failed", True),
}
_ENDINGS = {"DeadlineExceeded": "deadline_exceeded", "Evicted": "evicted", "OOMKilled": "oom"}


def is_ready(pod: dict[str, Any]) -> bool:
    """Whether every container runs."""
    statuses = pod.get("status", {}).get("containerStatuses", [])
    expected = len(pod.get("spec", {}).get("containers", []))
    return len(statuses) == expected > 0 and all("running" in status.get("state", {}) for status in statuses)


def restarts(pod: dict[str, Any]) -> int:
    """How often the container of the commands was started again."""
    return next((int(s.get("restartCount", 0)) for s in _statuses(pod) if s.get("name") == COMMANDS), 0)


def ran_out_of_memory(pod: dict[str, Any], restarts_before: int) -> bool:
    """Whether the container of the commands ended for want of memory since it had been restarted that often."""
    for status in _statuses(pod):
        if status.get("name") != COMMANDS:
            continue
        now = status.get("state", {}).get("terminated", {}).get("reason")
        last = status.get("lastState", {}).get("terminated", {}).get("reason")
        if now == "OOMKilled" or (last == "OOMKilled" and int(status.get("restartCount", 0)) > restarts_before):
            return True
    return False


def failure(pod: dict[str, Any]) -> SandboxFailure | None:
    """Why the pod will not be usable any more, if so."""
    status = pod.get("status", {})
    words = last_words(str(status.get("message", "")).encode())
    if status.get("phase") in ("Failed", "Succeeded"):
        reason = _ENDINGS.get(status.get("reason", ""), "pod_lost")
        return SandboxFailure(f"the pod has ended ({status.get('reason', 'no reason given')}): {words}", reason=reason)
    if "deletionTimestamp" in pod.get("metadata", {}):
        return SandboxFailure("the pod is being removed by somebody else", reason="pod_lost")
    for container in _statuses(pod):
        waiting = container.get("state", {}).get("waiting", {})
        if waiting.get("reason") in _HOPELESS:
            reason, retryable = _HOPELESS[waiting["reason"]]
            detail = last_words(str(waiting.get("message", "")).encode())
            return SandboxFailure(f"{waiting['reason']}: {detail}", reason=reason, retryable=retryable)
    return None


def unscheduled(pod: dict[str, Any]) -> bool:
    """Whether no node has taken the pod yet."""
    return not pod.get("spec", {}).get("nodeName")


def _statuses(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return list(pod.get("status", {}).get("containerStatuses", []))
