"""What the settings say of a cluster reaches the worker, `codeagent doctor` and `codeagent sandbox` alike."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from codeagent.cli import sandbox_machine
from codeagent.cli.main import app
from codeagent.cli.sandbox_host import configured
from codeagent.cli.sandbox_parts import choose
from codeagent.sandboxes.kubernetes import KubernetesDriver
from codeagent.sandboxes.notes import Note, Notes
from codeagent.sandboxes.protocol import SandboxUnavailable
from tests.integration.kubernetes.support import IMAGE, cluster_on_this_machine
from tests.integration.sandboxes.support import LIMITS, archive
from tests.servers.kubernetes_api import KubernetesApi

SETTINGS: Mapping[str, str] = {
    "SANDBOX_DRIVER": "kubernetes",
    "SANDBOX_IMAGE": IMAGE,
    "SANDBOX_MINIMUM_LEVEL": "3",
    "SANDBOX_KUBERNETES_RUNTIME_CLASS": "kata",
}
NOT_PROVEN = "not proven: memory limited"


@pytest.fixture
async def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[KubernetesApi]:
    """A cluster that the environment names as the settings do, and whose pods a probe does not accept."""
    async with cluster_on_this_machine(tmp_path / "unused") as (api, driver):
        api.runtime_classes = {"kata"}
        own = {"SANDBOX_DIR": str(tmp_path / "state"), "SANDBOX_KUBERNETES_URL": api.url}
        own["SANDBOX_KUBERNETES_CREDENTIALS"] = str(driver._cluster.credentials)
        for name, value in {**SETTINGS, **own}.items():
            monkeypatch.setenv(f"CODEAGENT_{name}", value)
        yield api


async def doctor(state_dir: Path) -> tuple[int, str, str]:
    words = ["doctor", "--json", "--state-dir", str(state_dir)]
    answer = await asyncio.to_thread(CliRunner().invoke, app, words)
    return answer.exit_code, answer.stdout, answer.stderr


def sandbox_exec(folder: Path, driver: str = "kubernetes") -> asyncio.Future[asyncio.subprocess.Process]:
    program = "from codeagent.cli.main import app; app()"
    words = ("sandbox", "exec", "--driver", driver, "--", "true")
    environment = {**os.environ, "TMPDIR": str(folder)}
    pipe = asyncio.subprocess.PIPE
    return asyncio.ensure_future(
        asyncio.create_subprocess_exec(sys.executable, "-c", program, *words, env=environment, stdout=pipe, stderr=pipe)
    )


async def test_a_worker_asks_the_cluster_of_its_settings_and_does_without_no_proof(api: KubernetesApi) -> None:
    with pytest.raises(SandboxUnavailable) as caught:
        await choose(configured())
    assert f"kubernetes at level 3: {NOT_PROVEN}" in caught.value.reasons
    assert [pod["spec"]["runtimeClassName"] for pod in api.made] == ["kata"]
    assert api.pods == {}


async def test_the_doctor_says_why_the_cluster_will_not_do(
    api: KubernetesApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")  # the other drivers are not what is asked here
    api.token = "another"
    status, said, _ = await doctor(tmp_path / "doctor")
    found = json.loads(said)
    assert (status, found["driver"], found["chosen"]) == (1, "kubernetes", None)
    reasons = {driver["level"]: driver["reasons"] for driver in found["drivers"] if driver["driver"] == "kubernetes"}
    assert set(reasons) == {2, 3}
    assert all(reason == ["the cluster refuses (401): Unauthorized"] for reason in reasons.values())


async def test_the_doctor_says_what_there_has_to_be_where_there_is_no_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    status, said, _ = await doctor(tmp_path)
    reasons = [driver["reasons"] for driver in json.loads(said)["drivers"] if driver["driver"] == "kubernetes"]
    assert status == 1
    assert len(reasons) == 2
    assert all("there is no cluster around: set CODEAGENT_SANDBOX_KUBERNETES_URL" in each for each in reasons)


async def test_a_setting_that_is_wrong_is_named_and_nothing_stands_in_for_it(
    api: KubernetesApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CODEAGENT_SANDBOX_KUBERNETES_NAMESPACE", "Not A Name")
    status, said, told = await doctor(tmp_path / "doctor")
    assert (status, said) == (1, "")
    assert "CODEAGENT_SANDBOX_KUBERNETES_NAMESPACE is wrong" in told
    process = await sandbox_exec(tmp_path)
    _, stderr = await process.communicate()
    assert process.returncode == 125
    assert b"CODEAGENT_SANDBOX_KUBERNETES_NAMESPACE is wrong" in stderr
    assert api.requests == []


async def test_the_pod_of_a_command_that_was_killed_is_removed_by_the_next(api: KubernetesApi, tmp_path: Path) -> None:
    await killed_with_a_pod(api, tmp_path)
    [left] = api.pods
    process = await sandbox_exec(tmp_path, driver="none")
    _, stderr = await process.communicate()
    assert (process.returncode, b"there is no driver none" in stderr) == (125, True)
    assert f"DELETE /api/v1/namespaces/codeagent-sandboxes/pods/{left}" in api.requests
    assert api.pods == {}
    assert list(tmp_path.glob("codeagent-sandbox-*")) == []


async def test_what_a_dead_worker_left_in_a_cluster_is_recovered_where_the_cluster_answers(
    api: KubernetesApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    await killed_with_a_pod(api, tmp_path)
    [state_dir] = tmp_path.glob("codeagent-sandbox-*")
    assert [row["state"] for row in (await listed(state_dir, capsys)).values()] == ["left"]
    with monkeypatch.context() as without:
        without.delenv("CODEAGENT_SANDBOX_KUBERNETES_URL")
        assert await asyncio.to_thread(sandbox_machine.recover, state_dir, as_json=True) == 1
    assert "pods may be left in a cluster" in capsys.readouterr().err
    assert await asyncio.to_thread(sandbox_machine.recover, state_dir, as_json=True) == 0
    assert json.loads(capsys.readouterr().out)["removed"]["pods"] == 1
    assert api.pods == {}


async def listed(state_dir: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, Any]]:
    assert await asyncio.to_thread(sandbox_machine.list_workspaces, state_dir, as_json=True) == 0
    return {row["workspace"]: row for row in map(json.loads, capsys.readouterr().out.splitlines())}


async def test_pods_are_listed_with_their_runs_and_those_of_other_workers_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    state_dir, source = tmp_path / "state", archive(tmp_path)
    async with cluster_on_this_machine(state_dir) as (api, driver):
        monkeypatch.setenv("CODEAGENT_SANDBOX_IMAGE", IMAGE)
        monkeypatch.setenv("CODEAGENT_SANDBOX_DRIVER", "kubernetes")
        monkeypatch.setenv("CODEAGENT_SANDBOX_KUBERNETES_URL", api.url)
        monkeypatch.setenv("CODEAGENT_SANDBOX_KUBERNETES_CREDENTIALS", str(driver._cluster.credentials))
        assert await listed(tmp_path / "no such", capsys) == {}
        other = KubernetesDriver(tmp_path / "other", driver._cluster, driver.level)
        noted, opened = [await driver.open(name, source, b"", LIMITS) for name in ("noted", "opened")]
        elsewhere = await other.open("elsewhere", source, b"", LIMITS)
        now = "2026-11-27T00:00:00Z"
        notes = Notes(state_dir)
        notes.prepare()
        notes.write(Note(noted.name, "run_x", "ten_x", "kubernetes", 2, os.getpid(), now, "working", now, "shell"))
        rows = await listed(state_dir, capsys)
        assert {name: (row["state"], row["run_id"], row["phase"]) for name, row in rows.items()} == {
            noted.name: ("working", "run_x", "Running"),
            opened.name: ("opening", None, "Running"),
            elsewhere.name: ("elsewhere", None, "Running"),
        }
        assert all(0 <= row["age_seconds"] < 120 for row in rows.values())
        assert await asyncio.to_thread(sandbox_machine.list_workspaces, state_dir, as_json=False) == 0
        assert opened.name in capsys.readouterr().out
        await other.close(elsewhere)
        await other.shutdown()
        api.token = "another"
        assert await asyncio.to_thread(sandbox_machine.list_workspaces, state_dir, as_json=False) == 1
        assert "the cluster refuses (401)" in capsys.readouterr().err


async def killed_with_a_pod(api: KubernetesApi, folder: Path) -> None:
    process = await sandbox_exec(folder)
    while not api.pods:
        assert process.returncode is None
        await asyncio.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    await process.communicate()
