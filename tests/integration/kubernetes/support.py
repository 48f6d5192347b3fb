"""A driver and the stub cluster it talks to."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from codeagent.sandboxes.cluster import Cluster
from codeagent.sandboxes.kubernetes import KubernetesDriver
from codeagent.sandboxes.protocol import IsolationLevel
from tests.integration.sandboxes.support import require_root_and_bwrap
from tests.servers.git_server import make_certificate
from tests.servers.kubernetes_api import NAMESPACE, TOKEN, KubernetesApi

IMAGE = "registry.example/sandbox@sha256:" + "0" * 64


@asynccontextmanager
async def cluster_on_this_machine(
    state_dir: Path, level: IsolationLevel = IsolationLevel.KERNEL
) -> AsyncIterator[tuple[KubernetesApi, KubernetesDriver]]:
    require_root_and_bwrap()
    with tempfile.TemporaryDirectory() as folder:
        credentials = Path(folder)
        key, certificate = make_certificate(credentials)
        (credentials / "token").write_text(TOKEN)
        (credentials / "ca.crt").write_bytes(certificate.read_bytes())
        async with KubernetesApi(key, certificate) as api:
            cluster = Cluster(image=IMAGE, namespace=NAMESPACE, url=api.url, credentials=credentials)
            driver = KubernetesDriver(state_dir, cluster, level)
            yield api, driver
            api.token = TOKEN
            await driver.shutdown()
