"""One process of the system: asked to stop at the worst of moments, it leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from codeagent.sandboxes.processes import strays
from tests.acceptance.system import codeagent, wait_until
from tests.integration.sandboxes.support import require_root_and_bwrap


@pytest.mark.timeout(60)
def test_a_sandbox_worker_stopped_while_it_tries_its_sandboxes_out_leaves_none(place: Path) -> None:
    require_root_and_bwrap()
    sandboxes = place / "sandboxes"
    environment = {
        **os.environ,
        "CODEAGENT_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none",
        "CODEAGENT_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "CODEAGENT_ARTIFACTS_DIR": str(place / "artifacts"),
        "CODEAGENT_SANDBOX_DIR": str(sandboxes),
    }
    worker = subprocess.Popen(codeagent("serve", "sandbox-worker"), env=environment, stderr=subprocess.PIPE)
    try:
        wait_until(lambda: strays(str(sandboxes)), 30, "a sandbox of the worker's own")
        worker.send_signal(signal.SIGTERM)
        _, said = worker.communicate(timeout=20)
        assert worker.returncode == 0, said.decode()
        assert strays(str(sandboxes)) == []
        assert list((sandboxes / "workspaces").iterdir()) == []
    finally:
        worker.kill()
        worker.wait()
