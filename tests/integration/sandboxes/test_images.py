"""Commands in an image of their own: what they see of it, what they see of the machine, and what stays out of reach."""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from codeagent.sandboxes.bwrap import BubblewrapDriver
from codeagent.sandboxes.image_check import faults_of
from codeagent.sandboxes.local import LocalDriver
from codeagent.sandboxes.protocol import SandboxUnavailable, Toolchain, Workspace
from codeagent.sandboxes.runsc import RunscDriver
from tests.integration.sandboxes.support import (
    LIMITS,
    archive,
    require_root_and_bwrap,
    require_root_and_runsc,
    run,
    shell,
)
from tests.services.root_image import laid_out

SECRET = "of the machine"
DRIVERS: dict[str, tuple[Callable[[], None], Callable[..., LocalDriver]]] = {
    "bwrap": (require_root_and_bwrap, BubblewrapDriver),
    "runsc": (require_root_and_runsc, RunscDriver),
}


@pytest.fixture(scope="module")
def image() -> Iterator[Path]:
    """With links that lead to a file of the machine, whoever follows them there, and a device."""
    with laid_out() as root:
        secret = root.parent / "secret"
        secret.mkdir()
        (secret / "key").write_text(SECRET)
        (root / "usr/share").mkdir()
        (root / "usr/share/absolute").symlink_to(secret)
        (root / "usr/share/relative").symlink_to("../../../../../../../../.." + str(secret))
        (root / "usr/share/beside").symlink_to("../../../secret")
        for name in ("leak", "etc/leak", "etc/ssl"):
            (root / name).symlink_to(secret)
        (root / "etc/toolchain.conf").write_text("of the image\n")
        os.mknod(root / "usr/share/null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        (root / "usr/share/null").chmod(0o666)
        yield root


@pytest.fixture(params=list(DRIVERS))
async def imaged(request: pytest.FixtureRequest, state_dir: Path, image: Path) -> AsyncIterator[LocalDriver]:
    require, make = DRIVERS[request.param]
    require()
    driver = make(state_dir, images={"toolchain": str(image)})
    yield driver
    await driver.shutdown()


@pytest.fixture
async def workspace(imaged: LocalDriver, tmp_path: Path) -> Workspace:
    return await imaged.open("own", archive(tmp_path, {"README": b"hello\n"}), b"", LIMITS, Toolchain("toolchain"))


async def test_an_image_takes_the_machines_place_and_leads_nowhere(imaged: LocalDriver, workspace: Workspace) -> None:
    script = """
        toolchain; cat /etc/toolchain.conf README
        for program in git python3 pytest sed; do command -v $program && echo "the machine's $program"; done
        for place in /usr/share/absolute /usr/share/relative /usr/share/beside /leak /etc/leak /etc/ssl; do
            cat $place/key
        done
        for place in /x /usr/x /opt/x /etc/x /opt/toolchain/x; do touch $place && echo "wrote $place"; done
        echo x > /usr/share/null && echo 'a device'
        ls /home/agent /tmp; while read -r line; do echo "$line"; done < /etc/passwd
    """
    record = await shell(imaged, workspace, script)  # type: ignore[arg-type]
    told = record.stdout.decode()
    assert told.startswith("of the image\nof the image\nhello\n/home/agent:\n\n/tmp:\nroot:x:0:"), told
    assert SECRET not in told
    assert "No such file" in record.stderr.decode()


async def test_the_record_of_what_confines_knows_the_image(imaged: LocalDriver) -> None:
    report = await imaged.probe()
    assert list(report.images) == ["toolchain"]
    assert report.images["toolchain"] != report.policy_digest


async def test_images_are_tried_and_what_they_lack_is_named(imaged: LocalDriver, image: Path) -> None:
    assert await faults_of(imaged, ["toolchain"]) == {"toolchain": ""}
    hidden = image / "usr/bin/grep.hidden"
    (image / "usr/bin/grep").rename(hidden)
    try:
        [fault] = (await faults_of(imaged, ["toolchain"])).values()
    finally:
        hidden.rename(image / "usr/bin/grep")
    assert fault == "it lacks grep, which the agent's tools run"


async def test_a_driver_does_not_start_with_an_image_that_is_not_there(state_dir: Path) -> None:
    require_root_and_bwrap()
    driver = BubblewrapDriver(state_dir, images={"go": "/nowhere/at/all"})
    with pytest.raises(SandboxUnavailable) as caught:
        await driver.probe()
    assert caught.value.reasons == ("image go: there is no directory /nowhere/at/all",)


async def test_an_image_without_a_shell_does_not_serve(state_dir: Path, image: Path) -> None:
    require_root_and_bwrap()
    bare = image.parent / "bare"
    (bare / "bin").mkdir(parents=True)
    driver = BubblewrapDriver(state_dir, images={"bare": str(bare)})
    try:
        [fault] = (await faults_of(driver, ["bare"])).values()
    finally:
        await driver.shutdown()
    assert fault.startswith("it does not run /bin/sh"), fault


async def test_the_sandbox_that_waits_takes_whatever_image(state_dir: Path, image: Path, tmp_path: Path) -> None:
    require_root_and_bwrap()
    driver = BubblewrapDriver(state_dir, images={"toolchain": str(image)})
    try:
        opened = await driver.open("own", archive(tmp_path), b"", LIMITS, Toolchain("toolchain"))
        waiting = opened.parked  # type: ignore[attr-defined]
        record = await run(driver, opened, ("toolchain",))
        assert record.stdout == b"of the image\n"
        assert waiting is not None
        assert opened.parked is not waiting  # type: ignore[attr-defined]
    finally:
        await driver.shutdown()
