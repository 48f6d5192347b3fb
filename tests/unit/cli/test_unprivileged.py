"""Who the services of `up` become, and what becomes theirs."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from codeagent.agent.tools import Shell
from codeagent.cli.unprivileged import arguments_of_helper, demotion_of_services, helper_of_worker
from codeagent.embedded.accounts import SERVICES_UID
from codeagent.embedded.directories import write_atomically
from codeagent.errors import Rejected
from codeagent.sandboxes.limits import applied
from codeagent.sandboxes.sandboxd.arguments import parse
from codeagent.sandboxes.sources import TrustedHost
from codeagent.settings import Settings, read_settings
from codeagent.workers.toolbox import spec_of
from tests.conftest import let_everyone_pass

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="about what root does")


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    let_everyone_pass(tmp_path)
    return tmp_path


def settings(data_dir: Path, **more: Any) -> Settings:
    return read_settings(
        artifacts_dir=data_dir / "artifacts",
        sandbox_dir=data_dir / "sandboxes",
        database_url="postgresql://nobody@127.0.0.1:1/none",
        kafka_bootstrap_servers="127.0.0.1:1",
        **more,
    )


def owners(root: Path) -> set[int]:
    return {path.lstat().st_uid for path in (root, *root.rglob("*"))}


@as_root
def test_what_an_earlier_release_stored_as_root_is_handed_over(data_dir: Path) -> None:
    stored = data_dir / "artifacts" / "ten_t" / "sha256" / "ab"
    stored.mkdir(parents=True)
    (stored / "abcd").write_bytes(b"x")
    (stored / "link").symlink_to("/etc/passwd")
    write_atomically(data_dir / "kek", "key")
    (data_dir / "connection.json").touch()
    demotion = demotion_of_services(settings(data_dir), data_dir)
    assert demotion is not None
    assert demotion.account.uid == SERVICES_UID
    assert owners(data_dir / "artifacts") == {SERVICES_UID}
    assert Path("/etc/passwd").stat().st_uid == 0
    assert (data_dir / "kek").stat().st_uid == SERVICES_UID
    assert ((data_dir / "kek").stat().st_mode & 0o777, (data_dir / "connection.json").stat().st_uid) == (0o600, 0)
    write_atomically(data_dir / "kek", "another")
    assert (data_dir / "kek").stat().st_uid == SERVICES_UID


@as_root
def test_a_first_start_makes_what_services_write_to(data_dir: Path) -> None:
    assert demotion_of_services(settings(data_dir), data_dir) is not None
    made = (data_dir / "artifacts").stat()
    assert (made.st_uid, made.st_mode & 0o777) == (SERVICES_UID, 0o770)


@as_root
def test_artifacts_that_belong_to_somebody_decide_who_the_services_are(data_dir: Path) -> None:
    (data_dir / "artifacts").mkdir()
    os.chown(data_dir / "artifacts", 60_930, 60_931)
    demotion = demotion_of_services(settings(data_dir), data_dir)
    assert demotion is not None
    assert (demotion.account.uid, demotion.account.gid) == (60_930, 60_931)


@as_root
def test_a_file_that_is_closed_to_them_leaves_them_the_right_to_read(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("codeagent.cli.unprivileged._program", lambda: [])
    providers = data_dir / "providers.json"
    providers.write_text("[]")
    for mode, reads_all in ((0o644, False), (0o600, True)):
        providers.chmod(mode)
        demotion = demotion_of_services(settings(data_dir, providers_file=providers), data_dir)
        assert demotion is not None
        assert demotion.reads_all is reads_all


@as_root
def test_a_data_directory_they_cannot_get_into_is_refused_by_name(data_dir: Path) -> None:
    closed = data_dir / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(Rejected, match=str(closed)):
        demotion_of_services(settings(closed / "data"), closed / "data")


def test_a_person_has_no_helper(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert demotion_of_services(settings(data_dir), data_dir) is None
    assert helper_of_worker(settings(data_dir), data_dir, None) is None
    assert not (data_dir / "artifacts").exists()


def test_the_helper_is_told_what_the_settings_say_of_sandboxes(data_dir: Path) -> None:
    image = f"agents@sha256:{'0' * 64}"
    said = settings(
        data_dir,
        sandbox_minimum_level=3,
        sandbox_driver="runsc",
        sandbox_parked=0,
        sandbox_image=image,
        sandbox_engine_arguments=["--host", "unix:///run/x"],
        sandbox_engine_runtime="runc",
        trusted_git_hosts=[{"host": "git.internal", "port": 8443, "certificates": "/ca.pem"}],
        egress_hosts=["packages.example"],
        sandbox_limits={"memory_bytes": 1 << 28},
        sandbox_max_limits={"cpu_millicores": 2500, "memory_bytes": 1 << 33},
        sandbox_max_command_seconds=900,
    )
    orders = parse(
        [*arguments_of_helper(said), "--socket", "s", "--state-dir", "d", "--worker-uid=1", "--worker-gid=1"]
    )
    assert (orders.minimum_level, orders.driver, orders.host.parked) == (3, "runsc", False)
    assert orders.host.trusted_hosts == (TrustedHost("git.internal", 8443, Path("/ca.pem")),)
    assert orders.ceiling.egress == ("packages.example:443",)
    engine = orders.host.containers
    assert (engine.image, engine.arguments, engine.runtime) == (image, ("--host", "unix:///run/x"), "runc")
    most = orders.ceiling.most
    assert (most.cpu_cores, most.memory_bytes, most.wall_seconds) == (2.5, 1 << 33, 900.0)
    # What its worker may ask for by its own policy, the helper allows.
    asked = spec_of(Shell(command="true"), applied(said.limit_policy().most)).limits
    assert all(value <= getattr(most, name) for name, value in asdict(asked).items())


@as_root
def test_pods_need_no_helper_and_their_worker_has_the_directory(data_dir: Path) -> None:
    said = settings(data_dir, sandbox_driver="kubernetes")
    demotion = demotion_of_services(said, data_dir)
    assert demotion is not None
    assert helper_of_worker(said, data_dir, demotion) is None
    assert (data_dir / "sandboxes").stat().st_uid == demotion.account.uid
    other = settings(data_dir)
    assert helper_of_worker(other, data_dir, demotion) is not None
