"""Makes, watches and removes the pods of one owner."""

from __future__ import annotations

import asyncio
import hashlib
import time
from typing import Any

from codeagent.sandboxes import pod_states, pods
from codeagent.sandboxes.cluster import ApiRefused, ClusterApi
from codeagent.sandboxes.protocol import IsolationLevel, Limits, SandboxFailure
from codeagent.sandboxes.uninterrupted import to_the_end

START_SECONDS = 120.0
GONE_SECONDS = 60.0
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.05, 1.0
_POLICIES = "/apis/networking.k8s.io/v1"


class Pods:
    """`owner`: what tells this worker's pods from those of others; a label's value."""

    def __init__(self, api: ClusterApi, owner: str, level: IsolationLevel) -> None:
        self._api = api
        self._owner = owner
        self._level = level

    def key(self, workspace_id: str) -> str:
        """A workspace's name in the cluster. It says nothing."""
        told = f"{self._owner}/{workspace_id}".encode("utf-8", "surrogatepass")
        return hashlib.sha256(told).hexdigest()[:40]

    async def isolate(self) -> None:
        """Makes the network policy of all pods to come. Raises `SandboxFailure` if another one has its name."""
        wanted = pods.network_policy(self._owner)
        try:
            await self._api.ask("POST", self._api.namespaced("networkpolicies", group=_POLICIES), wanted)
        except ApiRefused as refused:
            if refused.http_status != 409:
                raise
            path = self._api.namespaced("networkpolicies", wanted["metadata"]["name"], _POLICIES)
            spec = (await self._api.ask("GET", path)).get("spec", {})
            kept = {name: value for name, value in spec.items() if value}
            if kept != wanted["spec"]:
                why = "the network policy of the sandboxes was changed"
                raise SandboxFailure(why, reason="policy_changed", retryable=False) from None

    async def make(self, workspace_id: str, limits: Limits) -> dict[str, Any]:
        """A pod that runs. What was left under that name is removed first. Raises `SandboxFailure`."""
        key, cluster = self.key(workspace_id), self._api.cluster
        name = f"codeagent-{key}"
        await self.remove(name)
        labels = {pods.OWNER_LABEL: self._owner, pods.ID_LABEL: key}
        manifest = pods.pod(name, labels, cluster.image, limits, self._level, cluster.runtime_class)
        made = await self._api.ask("POST", self._api.namespaced("pods"), manifest)
        try:
            _check_unweakened(manifest["spec"], made.get("spec", {}))
            return await self.running(name)
        except BaseException:
            await to_the_end(self.remove(name))
            raise

    async def look(self, name: str) -> dict[str, Any]:
        """The pod as it is. Raises `SandboxFailure` (`pod_lost`) if there is none."""
        try:
            return await self._api.ask("GET", self._api.namespaced("pods", name))
        except ApiRefused as refused:
            if refused.http_status != 404:
                raise
            raise SandboxFailure("the pod is gone", reason="pod_lost") from None

    async def running(self, name: str) -> dict[str, Any]:
        """The pod once all of it runs. Raises `SandboxFailure` when that is hopeless, or after two minutes."""
        end, pause = time.monotonic() + START_SECONDS, _FIRST_PAUSE_SECONDS
        while True:
            pod = await self.look(name)
            if (failure := pod_states.failure(pod)) is not None:
                raise failure
            if pod_states.is_ready(pod):
                return pod
            if time.monotonic() > end:
                reason = "unschedulable" if pod_states.unscheduled(pod) else "start_failed"
                raise SandboxFailure(f"a pod did not run within {START_SECONDS:g} s", reason=reason)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    async def remove(self, name: str) -> bool:
        """Ends the pod and waits until it is gone; whether there was one. Raises `SandboxFailure` (`stuck`)."""
        path, pause = self._api.namespaced("pods", name), _FIRST_PAUSE_SECONDS
        end = time.monotonic() + GONE_SECONDS
        found = False
        try:
            # Not a grace of 0: the object would be gone before the node has ended its processes.
            await self._api.ask("DELETE", path, query={"gracePeriodSeconds": "1"})
            found = True
            while time.monotonic() < end:
                await self._api.ask("GET", path)
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
        except ApiRefused as refused:
            if refused.http_status != 404:
                raise
            return found
        raise SandboxFailure("a pod cannot be ended", reason="stuck")

    async def names(self) -> dict[str, str]:
        """Every pod of this owner, by the key of its workspace."""
        found: dict[str, str] = {}
        query = {"labelSelector": f"{pods.OWNER_LABEL}={self._owner}", "limit": "500"}
        while True:
            listed = await self._api.ask("GET", self._api.namespaced("pods"), query=query)
            for pod in listed.get("items", []):
                metadata = pod["metadata"]
                found[metadata.get("labels", {}).get(pods.ID_LABEL, metadata["name"])] = metadata["name"]
            if not (more := listed.get("metadata", {}).get("continue")):
                return found
            query = {**query, "continue": more}


def _check_unweakened(asked: dict[str, Any], made: dict[str, Any]) -> None:
    """An API server that does not know a field drops it without a word, and an admission hook may change it or add a
    container. What the cluster adds to a security context by itself is its own default."""
    names = ("runtimeClassName", "hostUsers", "automountServiceAccountToken", "dnsPolicy")
    changed = [name for name in names if made.get(name) != asked.get(name)]
    changed += [name for name in ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace") if made.get(name)]
    if not _keeps(made.get("securityContext"), asked["securityContext"]):
        changed.append("securityContext")
    if (
        made.get("initContainers")
        or len(made.get("containers", [])) != len(asked["containers"])
        or not all(
            _keeps(got.get(field), wanted[field])
            for got, wanted in zip(made["containers"], asked["containers"], strict=True)
            for field in ("name", "image", "command", "securityContext", "resources")
        )
    ):
        changed.append("containers")
    if changed:
        why = f"the cluster does not keep what a pod was asked to be: {', '.join(changed)}"
        raise SandboxFailure(why, reason="pod_refused", retryable=False)


def _keeps(made: Any, asked: Any) -> bool:
    """Amounts are compared by being there: the cluster may write them another way."""
    if isinstance(asked, dict):
        return isinstance(made, dict) and all(
            name in made and (name in ("cpu", "memory", "ephemeral-storage") or _keeps(made[name], value))
            for name, value in asked.items()
        )
    return bool(made == asked)
