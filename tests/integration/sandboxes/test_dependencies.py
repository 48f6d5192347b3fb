"""Installing what a repository depends on, in real sandboxes: what is kept of it, and what a hostile one achieves."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import tarfile
import time
import zipfile
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from codeagent.sandboxes.bwrap import BubblewrapDriver
from codeagent.sandboxes.protocol import ExecRecord, ExecSpec, Reason, SandboxFailure, Toolchain, Workspace
from codeagent.sandboxes.volumes import Volumes
from tests.integration.sandboxes.support import LIMITS, archive, ignore, processes_of, shell, slot_of
from tests.servers.registry import Registry

ROOM = replace(LIMITS, dependencies_bytes=16 << 20)
FILES = {"README": b"hello\n"}


async def install(
    driver: BubblewrapDriver, workspace: Workspace, script: str, packed: Path, **more: object
) -> ExecRecord:
    spec = ExecSpec(("bash", "-c", script), limits=ROOM)
    return await driver.install(workspace, replace(spec, **more), packed, ignore)  # type: ignore[arg-type]


async def using(driver: BubblewrapDriver, packed: Path, folder: Path, name: str = "user") -> Workspace:
    return await driver.open(name, archive(folder, FILES), b"", LIMITS, Toolchain(dependencies=packed))


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    return tmp_path / "dependencies.tar.gz"


@pytest.fixture
async def reaching(state_dir: Path, registry: Registry) -> AsyncIterator[BubblewrapDriver]:
    driver = BubblewrapDriver(state_dir, trusted_hosts=[registry.trusted])
    yield driver
    await driver.shutdown()


def wheel(name: str, source: bytes) -> bytes:
    data, info = io.BytesIO(), f"{name}-1.0.dist-info"
    with zipfile.ZipFile(data, "w") as file:
        file.writestr(f"{name}.py", source)
        file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", f"{name}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    return data.getvalue()


async def test_pip_installs_from_the_registry_and_commands_then_work_with_it(
    reaching: BubblewrapDriver, registry: Registry, tmp_path: Path, packed: Path
) -> None:
    content = wheel("greeting", b"WORD = 'hello'\n")
    name = "greeting-1.0-py3-none-any.whl"
    digest = hashlib.sha256(content).hexdigest()
    registry.pages = {
        "/simple/greeting/": f'<a href="/files/{name}#sha256={digest}">{name}</a>'.encode(),
        f"/files/{name}": content,
    }
    source = archive(tmp_path, {"requirements.txt": b"greeting==1.0\n"})
    workspace = await reaching.open("installs", source, b"", ROOM)
    index = f"https://{registry.authority}/simple"
    script = f"python3 -m venv /dependencies && pip install -q -i {index} -r requirements.txt"
    limits = replace(ROOM, dependencies_bytes=64 << 20, wall_seconds=60.0)
    record = await install(reaching, workspace, script, packed, egress=(registry.authority,), limits=limits)
    assert record.reason is Reason.OK, record.stderr
    assert registry.asked == ["/simple/greeting/", f"/files/{name}"]
    assert {(seen.host, seen.verdict.value) for seen in record.egress} == {("registry.example", "allowed")}
    later = await reaching.open("uses", source, b"", LIMITS, Toolchain(dependencies=packed))
    seen = await shell(reaching, later, "command -v python3; python3 -B -v -c 'import greeting; print(greeting.WORD)'")
    assert seen.stdout == b"/dependencies/bin/python3\nhello\n"
    assert b"greeting.cpython" in seen.stderr, "what was compiled then is used now"


async def test_what_is_installed_is_read_only_for_those_who_use_it_and_the_same_for_all(
    driver: BubblewrapDriver, workspace: Workspace, tmp_path: Path, packed: Path, state_dir: Path
) -> None:
    script = "cd /dependencies; mkdir bin; printf '#!/bin/sh\\necho hi' >bin/hi; chmod 700 bin/*"
    assert (await install(driver, workspace, script, packed)).reason is Reason.OK
    users = [await using(driver, packed, tmp_path, name) for name in ("one", "two")]
    for user in users:
        seen = await shell(driver, user, "hi; echo $PATH | cut -d: -f1; echo $NODE_PATH")
        assert seen.stdout == b"hi\n/dependencies/bin\n/dependencies/node_modules\n"
        refused = await shell(driver, user, "cd /dependencies; echo x >bin/hi || rm bin/hi || touch x")
        assert refused.stderr.count(b"Read-only file system") == 3
    assert b" /dependencies ro,nosuid,nodev" in (await shell(driver, users[0], "cat /proc/self/mountinfo")).stdout
    digest = hashlib.sha256(packed.read_bytes()).hexdigest()
    [layout] = [path for path in state_dir.glob("dependencies/*/*") if path.name == digest]
    assert (layout.stat().st_uid, (layout / "bin/hi").stat().st_mode & 0o7777) == (0, 0o755)


async def test_the_same_installation_packs_into_the_same_bytes(
    driver: BubblewrapDriver, workspace: Workspace, packed: Path, tmp_path: Path
) -> None:
    script = "cd /dependencies; for n in $(shuf -e c a b); do mkdir $n; echo $n >$n/file; sleep 0.01; done"
    again = tmp_path / "again.tar.gz"
    for target in (packed, again):
        assert (await install(driver, workspace, script, target)).reason is Reason.OK
    assert packed.read_bytes() == again.read_bytes()


async def test_the_files_of_the_run_cannot_be_changed_while_it_installs(
    driver: BubblewrapDriver, workspace: Workspace, packed: Path
) -> None:
    script = "echo x >README; rm -rf README; ln -s /etc evil; touch /dependencies/done; cat README"
    record = await install(driver, workspace, script, packed)
    assert (record.reason, record.stdout) == (Reason.OK, b"hello\n")
    assert record.stderr.count(b"Read-only file system") == 3
    assert (await driver.diff(workspace, LIMITS)).text == b""


HOSTILE = r"""
cd /dependencies
cp /bin/true su; chmod 6755 su
ln -s /etc/shadow shadow; ln -s ../../../etc/passwd passwd; ln -s /dependencies/su absolute; ln -s /usr/bin/env env
ln -s /usr/../etc/passwd sly; ln -s / root
mkfifo pipe; mknod device c 1 3
python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("socket")'
ln su hard
printf x >"$(printf 'new\nline')"
setsid sh -c 'while sleep 0.05; do date >>/dependencies/alive; done' >/dev/null 2>&1 </dev/null &
exit 0
"""


async def test_nothing_but_files_directories_and_harmless_links_is_kept(
    cold: BubblewrapDriver, tmp_path: Path, packed: Path
) -> None:
    workspace = await cold.open("hostile", archive(tmp_path, FILES), b"", LIMITS)
    assert (await install(cold, workspace, HOSTILE, packed)).reason is Reason.OK
    assert processes_of(slot_of(workspace)) == [], "the daemon is gone"
    with tarfile.open(packed) as tar:
        members = {member.name: member for member in tar.getmembers()}
    links = {name: member.linkname for name, member in members.items() if member.issym()}
    assert links == {"absolute": "su", "env": "/usr/bin/env"}
    assert sorted(members.keys() - links.keys() - {"alive"}) == ["hard", "new\nline", "su"]
    assert {(member.mode, member.uid, member.gid, member.uname) for member in members.values() if member.isreg()} <= {
        (0o644, 0, 0, ""),
        (0o755, 0, 0, ""),
    }
    user = await using(cold, packed, tmp_path)
    seen = await shell(
        cold, user, "find /dependencies -perm /7000; cat /dependencies/shadow; /dependencies/env echo ok"
    )
    assert seen.stdout == b"ok\n"


@pytest.mark.parametrize(
    "script",
    [
        "truncate -s 1T /dependencies/huge",
        "cd /dependencies; for n in $(seq 150); do mkdir d; cd d; done",
        "cd /dependencies; name=$(printf 'x%.0s' $(seq 250)); for n in $(seq 18); do mkdir $name; cd $name; done",
    ],
    ids=["declares more", "nested without end", "names without end"],
)
async def test_what_would_not_fit_anywhere_is_refused(
    driver: BubblewrapDriver, workspace: Workspace, packed: Path, script: str
) -> None:
    with pytest.raises(SandboxFailure) as caught:
        await install(driver, workspace, script, packed, limits=replace(ROOM, file_bytes=2 << 40))
    assert (caught.value.reason, caught.value.retryable) == ("dependencies_too_large", False)
    assert not packed.exists()


async def test_a_full_volume_is_told_as_such(driver: BubblewrapDriver, workspace: Workspace, packed: Path) -> None:
    record = await install(driver, workspace, "head -c 100M /dev/zero >/dependencies/zeros", packed)
    assert (record.reason, record.limits_hit) == (Reason.EXIT, ("disk",))
    assert not packed.exists()


async def test_an_installation_reaches_the_registries_alone(
    reaching: BubblewrapDriver, registry: Registry, tmp_path: Path, packed: Path
) -> None:
    workspace = await reaching.open("reaches", archive(tmp_path, FILES), b"", ROOM)
    program = f"""
import http.client, urllib.request
for url in ("https://{registry.authority}/a", "https://elsewhere.example/b", "http://169.254.169.254/"):
    try:
        print(urllib.request.urlopen(url, timeout=5).read())
    except (OSError, http.client.HTTPException) as error:
        print("refused")
"""
    argv = ("python3", "-I", "-c", program)
    record = await install(reaching, workspace, "", packed, argv=argv, egress=(registry.authority,))
    assert record.stdout.splitlines() == [b"b'a package\\n'", b"refused", b"refused"]
    verdicts = [(seen.host, seen.verdict.value) for seen in record.egress]
    assert verdicts == [("registry.example", "allowed"), ("elsewhere.example", "host_refused"), ("", "not_connect")]
    alone = await install(reaching, workspace, "", packed, argv=argv)
    assert (alone.stdout.count(b"refused"), alone.egress) == (3, ())


async def test_a_canceled_installation_leaves_nothing(
    driver: BubblewrapDriver, workspace: Workspace, packed: Path, state_dir: Path
) -> None:
    task = asyncio.ensure_future(install(driver, workspace, "sleep 100", packed))
    while not list(state_dir.glob("workspaces/*/room-*")):
        await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert list(state_dir.glob("workspaces/*/room-*")) == []
    assert not [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if "/room-" in line]
    assert (packed.exists(), os.listdir(packed.parent)) == (False, ["workspace.tar.gz"])


async def test_a_workspace_closed_while_it_installs_is_removed_after_its_volume(
    driver: BubblewrapDriver, workspace: Workspace, packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone: list[str] = []
    drop, remove = Volumes.drop, Volumes.remove

    def slowly(volumes: Volumes, volume: Path) -> None:
        time.sleep(0.2)
        drop(volumes, volume)
        gone.append("volume")

    def remembered(volumes: Volumes, name: str) -> None:
        remove(volumes, name)
        gone.append("workspace")

    monkeypatch.setattr(Volumes, "drop", slowly)
    monkeypatch.setattr(Volumes, "remove", remembered)
    begun = asyncio.Event()

    async def hear(_stream: str, _piece: bytes) -> None:
        begun.set()

    spec = ExecSpec(("bash", "-c", "echo; sleep 60"), limits=ROOM)
    installing = asyncio.create_task(driver.install(workspace, spec, packed, hear))
    await begun.wait()
    await driver.close(workspace)
    assert (await installing).reason is Reason.CANCELED
    assert gone == ["volume", "workspace"]
