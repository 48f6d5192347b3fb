"""The driver of pods and a cluster: what it asks for, how it tells endings apart, and what it does not put up with."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from codeagent.sandboxes.kubernetes import KubernetesDriver
from codeagent.sandboxes.protocol import ExecSpec, IsolationLevel, Reason, SandboxFailure, Workspace
from tests.integration.kubernetes.support import cluster_on_this_machine
from tests.integration.sandboxes.support import LIMITS, archive, ignore
from tests.servers.kubernetes_api import NAMESPACE, TOKEN, VERSION, KubernetesApi
from tests.servers.pod_rules import covers

ROOT = Path(__file__).parents[3]
RUN = ExecSpec(("true",), limits=LIMITS)


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[tuple[KubernetesApi, KubernetesDriver]]:
    async with cluster_on_this_machine(tmp_path / "state") as both:
        yield both


async def opened(driver: KubernetesDriver, tmp_path: Path, name: str = "w") -> Workspace:
    return await driver.open(name, archive(tmp_path, {"README": b"hello\n"}), b"", LIMITS)


async def refusal(work: object) -> tuple[str, bool]:
    with pytest.raises(SandboxFailure) as caught:
        await work  # type: ignore[misc]
    return caught.value.reason, caught.value.retryable


async def test_a_pod_is_made_as_the_published_schema_and_the_hardening_demand(
    cluster: tuple[KubernetesApi, KubernetesDriver], tmp_path: Path
) -> None:
    api, driver = cluster
    await opened(driver, tmp_path)
    (pod,) = api.pods.values()
    commands, repository = pod["spec"]["containers"]
    assert pod["spec"]["hostUsers"] is False
    assert {mount["mountPath"] for mount in commands["volumeMounts"]} == {"/workspace", "/tmp", "/home/agent"}
    assert {mount["mountPath"] for mount in repository["volumeMounts"]} == {"/workspace", "/tmp", "/base.git"}
    (policy,) = api.policies.values()
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert not {"ingress", "egress"} & set(policy["spec"])
    assert covers(policy, pod["metadata"]["labels"])


async def test_the_role_that_is_shipped_allows_what_the_driver_asks_and_nothing_else(
    cluster: tuple[KubernetesApi, KubernetesDriver], tmp_path: Path
) -> None:
    shipped = list(yaml.safe_load_all((ROOT / "deploy/kubernetes/sandboxes.yaml").read_text()))
    for document in shipped:
        kubernetes_validate.validate(document, VERSION, strict=True)
    [role] = [document for document in shipped if document["kind"] == "Role"]
    assert {document["metadata"].get("namespace", document["metadata"]["name"]) for document in shipped} == {NAMESPACE}
    allowed = {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    api, driver = cluster
    await opened(driver, tmp_path)
    await driver.reap(frozenset())
    assert api.addresses
    # Before 1.35 a program is started by the right to get, since then by the one to create.
    started = {("", "pods/exec", verb) for verb in ("get", "create")}
    assert {asked_right(request) for request in api.requests} | started == allowed


def asked_right(request: str) -> tuple[str, str, str]:
    """API group, resource and verb of a request."""
    method, _, path = request.partition(" ")
    kind, *name = path.partition(f"/namespaces/{NAMESPACE}/")[2].split("/")
    group = path.split("/")[2] if path.startswith("/apis/") else ""
    verb = {"POST": "create", "DELETE": "delete", "GET": "get" if name else "list"}[method]
    return group, kind, verb


async def test_commands_run_files_are_reached_and_nothing_is_left(
    cluster: tuple[KubernetesApi, KubernetesDriver], tmp_path: Path
) -> None:
    api, driver = cluster
    workspace = await opened(driver, tmp_path)
    stays = ExecSpec(("sh", "-c", "setsid sleep 600 >/dev/null 2>&1 & cat README; ls /base.git; exit 7"), limits=LIMITS)
    record = await driver.run(workspace, stays, ignore)
    assert (record.reason, record.exit_code, record.stdout) == (Reason.EXIT, 7, b"hello\n")
    seen = await driver.run(workspace, ExecSpec(("sh", "-c", "cat /proc/[0-9]*/comm"), limits=LIMITS), ignore)
    assert sorted(seen.stdout.split()) == [b"sh", b"sleep"]
    await driver.write_file(workspace, "new", b"x\n")
    assert (await driver.diff(workspace, LIMITS)).files == ("new",)
    await driver.close(workspace)
    assert api.pods == {}


async def test_how_a_pod_ended_is_told(cluster: tuple[KubernetesApi, KubernetesDriver], tmp_path: Path) -> None:
    api, driver = cluster
    workspace = await opened(driver, tmp_path)
    api.breaks = "OOMKilled"
    record = await driver.run(workspace, RUN, ignore)
    assert (record.reason, record.exit_code, record.oom_kills) == (Reason.OOM, None, 1)
    assert (await driver.run(workspace, RUN, ignore)).reason is Reason.OK
    for why, reason in (("DeadlineExceeded", "deadline_exceeded"), ("Evicted", "evicted"), ("NodeLost", "pod_lost")):
        workspace = await opened(driver, tmp_path)
        api.breaks = why
        assert await refusal(driver.run(workspace, RUN, ignore)) == (reason, True)
        assert await refusal(driver.run(workspace, RUN, ignore)) == ("closed", False)
        assert api.pods == {}


def privileged(spec: dict[str, Any]) -> None:
    spec["containers"][0]["securityContext"]["capabilities"]["add"] = ["SYS_ADMIN"]


@pytest.mark.parametrize(
    ("fault", "reason", "retryable"),
    [
        ({"refuses": (403, "violates PodSecurity")}, "pod_refused", False),
        ({"refuses": (403, "exceeded quota: pods")}, "quota_exceeded", True),
        ({"refuses": (503, "no leader")}, "cluster_unavailable", True),
        ({"changes": lambda spec: spec.pop("hostUsers")}, "pod_refused", False),
        ({"changes": lambda spec: spec["volumes"].append({"name": "aws-iam-token"})}, "pod_refused", False),
        ({"changes": lambda spec: spec["containers"].append({"name": "sidecar"})}, "pod_refused", False),
        ({"changes": lambda spec: spec["containers"][0].update(env=[{"name": "A"}])}, "pod_refused", False),
        ({"changes": privileged}, "pod_refused", False),
        ({"waits": "ErrImageNeverPull"}, "image_missing", False),
        ({"waits": "ImagePullBackOff"}, "image_missing", True),
        ({"waits": "CreateContainerConfigError"}, "start_failed", False),
    ],
)
async def test_a_pod_that_cannot_be_made_is_no_workspace(
    cluster: tuple[KubernetesApi, KubernetesDriver],
    tmp_path: Path,
    fault: dict[str, object],
    reason: str,
    retryable: bool,
) -> None:
    api, driver = cluster
    for name, value in fault.items():
        setattr(api, name, value)
    assert await refusal(opened(driver, tmp_path)) == (reason, retryable)
    assert api.pods == {}


async def test_without_its_runtime_class_no_pod_is_made(tmp_path: Path) -> None:
    async with cluster_on_this_machine(tmp_path / "state", IsolationLevel.OWN_KERNEL) as (api, driver):
        api.runtime_classes.clear()
        assert await refusal(opened(driver, tmp_path)) == ("pod_refused", False)
        assert "POST /api/v1/namespaces/codeagent-sandboxes/pods" in api.requests
        assert api.pods == {}


async def test_a_renewed_token_is_used_and_a_policy_that_was_opened_is_refused(
    cluster: tuple[KubernetesApi, KubernetesDriver], tmp_path: Path
) -> None:
    api, driver = cluster
    await opened(driver, tmp_path)
    token = driver._cluster.credentials / "token"
    api.token = "another"
    assert await refusal(driver.reap(frozenset())) == ("cluster_unavailable", True)
    token.write_text("another\n")
    assert await driver.reap(frozenset()) == 1
    (policy,) = api.policies.values()
    policy["spec"]["egress"] = [{}]
    assert await refusal(opened(driver, tmp_path)) == ("policy_changed", False)
    assert api.pods == {}
    api.policies.clear()
    await opened(driver, tmp_path)
    assert len(api.policies) == 1
    token.write_text(TOKEN)


async def test_what_a_dead_worker_left_is_reaped(
    cluster: tuple[KubernetesApi, KubernetesDriver], tmp_path: Path
) -> None:
    api, driver = cluster
    await opened(driver, tmp_path, "left")
    await opened(driver, tmp_path, "kept")
    driver._live.clear()
    assert await driver.reap(frozenset({"kept"})) == 1
    assert len(api.pods) == 1
