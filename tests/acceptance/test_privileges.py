"""Who is root while a run is at work, and that the run comes to its end when the one that is gets killed."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from tests.acceptance.checks import Watched, upload
from tests.acceptance.conversations import EMPTY, line_writer
from tests.acceptance.system import UpSystem, client
from tests.conftest import unavailable
from tests.servers.model_server import ModelServer


def user_of(pid: int) -> int:
    [line] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("Uid:")]
    users = set(line.split()[1:])
    assert len(users) == 1
    return int(users.pop())


@pytest.mark.timeout(180)
def test_only_the_helper_is_root_and_a_run_survives_its_death(
    up_system: UpSystem, model_server: ModelServer, tmp_path: Path
) -> None:
    if os.geteuid() != 0:
        unavailable("only what root has started becomes somebody else")
    roots = {name for name, pid in up_system.pids().items() if user_of(pid) == 0}
    assert roots == {"sandboxd", "supervisor"}
    environment = Path(f"/proc/{up_system.pids()['sandboxd']}/environ").read_bytes()
    assert {item.partition(b"=")[0] for item in environment.split(b"\0") if item} == {
        b"PATH", b"HOME", b"TZ", b"LC_ALL"
    }  # fmt: skip
    model_server.script = line_writer(4)
    api = client(up_system)
    source = {"kind": "archive", "digest": upload(api, EMPTY, tmp_path)}
    run = Watched(api.submit({"task": "Write.", "source": source, "model": "local/scripted"}, "survives")["id"])
    killing = threading.Thread(target=up_system.kill, args=("sandboxd",))
    killing.start()
    run.follow(api)
    killing.join()
    assert run.names[-1] == "run.completed"
