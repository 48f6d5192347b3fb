"""Makes, watches and removes the pods of one owner."""

from __future__ import annotations

import asyncio
import hashlib
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from codeagent.sandboxes import pod_admission, pod_states, pods
from codeagent.sandboxes.cluster import ApiRefused, ClusterApi
from codeagent.sandboxes.protocol import IsolationLevel, Limits, SandboxFailure
from codeagent.sandboxes.uninterrupted import to_the_end

START_SECONDS = 120.0
GONE_SECONDS = 60.0
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.05, 1.0
_GRACE_SECONDS = 3600.0
"""Longer than any clock is wrong."""
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
        """Sees to it that the network policy of all pods is there. Raises `SandboxFailure` if it is another one."""
        wanted = pods.network_policy()
        policy = await self._policy()
        if policy is None:
            try:
                policy = await self._api.ask("POST", self._api.namespaced("networkpolicies", group=_POLICIES), wanted)
            except ApiRefused as refused:
                if refused.http_status != 409:
                    raise
                policy = await self._policy() or {}  # another worker was faster
        kept = {name: value for name, value in policy.get("spec", {}).items() if value}
        if kept != wanted["spec"]:
            why = f"the network policy {pods.POLICY} was changed"
            raise SandboxFailure(why, reason="policy_changed", retryable=False)

    async def _policy(self) -> dict[str, Any] | None:
        try:
            return await self._api.ask("GET", self._api.namespaced("networkpolicies", pods.POLICY, _POLICIES))
        except ApiRefused as refused:
            if refused.http_status != 404:
                raise
            return None

    async def make(self, workspace_id: str, limits: Limits) -> dict[str, Any]:
        """A pod that runs, isolated. What was left under that name is removed first. Raises `SandboxFailure`."""
        key, cluster = self.key(workspace_id), self._api.cluster
        name = f"codeagent-{key}"
        await self.isolate()
        await self.remove(name)
        labels = {pods.OWNER_LABEL: self._owner, pods.ID_LABEL: key}
        manifest = pods.pod(name, labels, cluster.image, limits, self._level, cluster.runtime_class)
        try:
            # To the end: a request that is given up may still be granted, when nobody looks any more.
            made = await to_the_end(self._api.ask("POST", self._api.namespaced("pods"), manifest))
            pod_admission.check(manifest["spec"], made.get("spec", {}))
            return await self.running(name)
        except BaseException:
            with suppress(SandboxFailure):  # what made it fail is the answer; the next reaping finds the pod
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

    async def remove(self, name: str) -> None:
        """Ends the pod, if there is one, and waits until it is gone. Raises `SandboxFailure` (`stuck`)."""
        path, pause = self._api.namespaced("pods", name), _FIRST_PAUSE_SECONDS
        end = time.monotonic() + GONE_SECONDS
        try:
            await self.ask_to_end(name)
            while time.monotonic() < end:
                await self._api.ask("GET", path)
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
        except ApiRefused as refused:
            if refused.http_status != 404:
                raise
            return
        raise SandboxFailure("a pod cannot be ended", reason="stuck")

    async def ask_to_end(self, name: str) -> None:
        """Ends the pod, if there is one, some time. Raises `SandboxFailure`."""
        try:
            # Not a grace of 0: the object would be gone before the node has ended its processes.
            path = self._api.namespaced("pods", name)
            await self._api.ask("DELETE", path, query={"gracePeriodSeconds": "1"})
        except ApiRefused as refused:
            if refused.http_status != 404:
                raise

    async def names(self) -> dict[str, str]:
        """Every pod of this owner, by the key of its workspace."""
        found = {}
        for pod in await self._all(f"{pods.OWNER_LABEL}={self._owner}"):
            metadata = pod["metadata"]
            found[str(metadata["labels"].get(pods.ID_LABEL, metadata["name"]))] = str(metadata["name"])
        return found

    async def of_everybody(self) -> list[dict[str, Any]]:
        """Every pod of a sandbox in the namespace, whoever owns it."""
        return await self._all(pods.OWNER_LABEL)

    async def abandoned(self) -> list[str]:
        """Pods of any owner that should have ended by themselves some time ago: none is left that would remove them."""
        before = datetime.now(UTC) - timedelta(seconds=pods.POD_SECONDS + _GRACE_SECONDS)
        found = [pod["metadata"] for pod in await self.of_everybody()]
        return [str(pod["name"]) for pod in found if datetime.fromisoformat(pod["creationTimestamp"]) < before]

    async def _all(self, selector: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        query = {"labelSelector": selector, "limit": "500"}
        while True:
            listed = await self._api.ask("GET", self._api.namespaced("pods"), query=query)
            found += listed.get("items", [])
            if not (more := listed.get("metadata", {}).get("continue")):
                return found
            query = {**query, "continue": more}
