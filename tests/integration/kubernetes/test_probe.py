"""A worker starts on a cluster only if the cluster was seen to isolate."""

from __future__ import annotations

from pathlib import Path

import pytest

from codeagent.sandboxes.cluster import Cluster
from codeagent.sandboxes.kubernetes import KubernetesDriver
from codeagent.sandboxes.protocol import SandboxUnavailable
from tests.integration.kubernetes.support import cluster_on_this_machine


async def test_what_a_cluster_does_not_isolate_keeps_the_worker_from_starting(tmp_path: Path) -> None:
    async with cluster_on_this_machine(tmp_path / "state") as (api, driver):
        with pytest.raises(SandboxUnavailable) as caught:
            await driver.probe()
        assert api.pods == {}
    # What the stub's pods lack, and nothing else.
    lacks = ("system calls filtered", "user namespace", "memory limited")
    assert set(caught.value.reasons) == {f"not proven: {lack}" for lack in lacks}


async def test_without_a_cluster_everything_that_lacks_is_said(tmp_path: Path) -> None:
    with pytest.raises(SandboxUnavailable) as caught:
        await KubernetesDriver(tmp_path, Cluster(credentials=tmp_path)).probe()
    assert len(caught.value.reasons) == 3
