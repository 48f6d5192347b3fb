"""An API server that is busy, is replaced, or lies: what the driver asks again, what it gives up, what it never tells."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from codeagent.sandboxes import cluster as cluster_module
from codeagent.sandboxes.cluster import Cluster, ClusterApi
from codeagent.sandboxes.kubernetes import OWNER, KubernetesDriver
from codeagent.sandboxes.protocol import ExecSpec, Reason, SandboxFailure
from tests.integration.kubernetes.support import IMAGE, cluster_on_this_machine
from tests.integration.kubernetes.test_pods import RUN, opened, refusal
from tests.integration.sandboxes.support import LIMITS, ignore
from tests.servers.git_server import make_certificate
from tests.servers.kubernetes_api import LOST, TOKEN, KubernetesApi


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[tuple[KubernetesApi, KubernetesDriver]]:
    async with cluster_on_this_machine(tmp_path / "state") as both:
        yield both


async def test_what_passes_is_asked_again_and_a_pod_is_made_once(
    cluster: tuple[KubernetesApi, KubernetesDriver], tmp_path: Path
) -> None:
    api, driver = cluster
    api.fails = [
        ("GET", 503, ""),  # its policy
        ("POST", 429, "TooManyRequests"),
        ("DELETE", 500, "InternalError"),  # what was left
        ("POST", 409, "Conflict"),  # a quota was counted meanwhile
        ("GET", LOST, ""),
        ("EXEC", 500, ""),
    ]
    await opened(driver, tmp_path)
    assert api.fails == []
    assert len(api.pods) == 1


async def test_a_pod_that_was_made_without_an_answer_is_removed(
    cluster: tuple[KubernetesApi, KubernetesDriver], tmp_path: Path
) -> None:
    api, driver = cluster
    await opened(driver, tmp_path, "first")
    api.fails = [("POST", LOST, "")]
    assert await refusal(opened(driver, tmp_path, "second")) == ("cluster_unavailable", True)
    assert len(api.pods) == 1


async def test_a_barrier_whose_connection_breaks_is_tried_again_and_a_second_time_costs_the_pod(
    cluster: tuple[KubernetesApi, KubernetesDriver], tmp_path: Path
) -> None:
    api, driver = cluster
    workspace = await opened(driver, tmp_path)
    slow = ExecSpec(("sleep", "30"), limits=replace(LIMITS, wall_seconds=1.0))

    async def run_while(*fails: tuple[str, int, str]) -> Reason:
        started = len(api.addresses)
        running = asyncio.ensure_future(driver.run(workspace, slow, ignore))
        while len(api.addresses) == started:
            await asyncio.sleep(0.01)
        api.fails = list(fails)
        return (await running).reason

    assert await run_while(("EXEC", LOST, "")) is Reason.TIMEOUT
    assert (await driver.run(workspace, RUN, ignore)).reason is Reason.OK
    with pytest.raises(SandboxFailure):
        await run_while(("EXEC", LOST, ""), ("EXEC", LOST, ""))
    assert api.pods == {}


async def test_one_pod_that_cannot_be_ended_keeps_no_other(
    cluster: tuple[KubernetesApi, KubernetesDriver], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    api, driver = cluster
    for name in ("a", "b", "c"):
        await opened(driver, tmp_path, name)
    monkeypatch.setattr(cluster_module, "_PAUSES_SECONDS", ())
    api.fails = [("DELETE", 500, "")]
    assert await refusal(driver.reap(frozenset())) == ("cluster_unavailable", True)
    assert len(api.pods) == 1
    assert await driver.reap(frozenset()) == 1
    assert api.pods == {}


async def test_pods_of_workers_that_are_gone_for_good_are_removed_and_no_others(
    cluster: tuple[KubernetesApi, KubernetesDriver], tmp_path: Path
) -> None:
    api, driver = cluster
    for name in ("left", "living"):
        await opened(driver, tmp_path, name)
    await driver._api.close()
    (tmp_path / "state" / OWNER).write_text("not a name\n")  # as after a disk that was lost
    driver._live.clear()
    driver._pods = None
    left, living = api.pods.values()
    left["metadata"]["creationTimestamp"] = f"{datetime.now(UTC) - timedelta(hours=7, minutes=1):%Y-%m-%dT%H:%M:%SZ}"
    assert await driver.reap(frozenset()) == 0
    assert list(api.pods.values()) == [living]


async def test_the_token_and_what_is_run_stand_in_no_log_and_no_address(
    cluster: tuple[KubernetesApi, KubernetesDriver], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    api, driver = cluster
    caplog.set_level(logging.DEBUG)
    workspace = await opened(driver, tmp_path)
    secret = ExecSpec(("echo", "argument-of-the-command"), env={"KEY": "value-of-the-command"}, limits=LIMITS)
    assert (await driver.run(workspace, secret, ignore)).reason is Reason.OK
    ours = [record.getMessage() for record in caplog.records if not record.name.startswith("uvicorn")]
    assert any("HTTP Request" in message for message in ours)
    said = "".join(ours + api.addresses + api.requests)
    for word in (TOKEN, "argument-of-the-command", "value-of-the-command"):
        assert word not in said
    assert max(map(len, api.addresses)) < 1000


async def test_a_server_that_the_certificates_do_not_name_is_shown_nothing(
    cluster: tuple[KubernetesApi, KubernetesDriver], tmp_path: Path
) -> None:
    api, driver = cluster
    _, another = make_certificate(tmp_path)
    (driver._cluster.credentials / "ca.crt").write_bytes(another.read_bytes())
    assert await refusal(driver.reap(frozenset())) == ("cluster_unavailable", True)
    assert api.requests == []


async def test_requests_at_once_share_a_client_and_new_certificates_disturb_none(
    cluster: tuple[KubernetesApi, KubernetesDriver],
) -> None:
    api, driver = cluster
    certificates = driver._cluster.credentials / "ca.crt"

    async def renewed() -> None:
        certificates.write_bytes(certificates.read_bytes())

    asked = [driver._version() for _ in range(20)]
    await asyncio.gather(*asked[:10], renewed(), *asked[10:])
    assert api.requests.count("GET /version") == 20


@pytest.mark.parametrize("token", [b"", b"two\nlines", b"\xff\xfe"])
async def test_a_token_that_is_none_is_told_without_its_text(tmp_path: Path, token: bytes) -> None:
    (tmp_path / "token").write_bytes(token)
    api = ClusterApi(Cluster(image=IMAGE, url="http://127.0.0.1:1", credentials=tmp_path))
    with pytest.raises(SandboxFailure, match=f"there is no token in {tmp_path}/token$"):
        await api.ask("GET", "/version")


@pytest.mark.parametrize(
    ("url", "lacks"), [("http://10.0.0.1", True), ("http://127.0.0.1:8001", False), ("http://localhost:8001", False)]
)
def test_a_token_is_shown_in_the_clear_on_this_machine_only(tmp_path: Path, url: str, lacks: bool) -> None:
    (tmp_path / "token").touch()
    missing = Cluster(image=IMAGE, url=url, credentials=tmp_path).missing()
    assert any("https://" in reason for reason in missing) is lacks
