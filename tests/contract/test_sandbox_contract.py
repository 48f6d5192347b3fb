"""What every sandbox driver keeps, the twin that executes nothing included: results, limits and refusals."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

import pytest

from codeagent.sandboxes.bwrap import BubblewrapDriver
from codeagent.sandboxes.containers import ContainerDriver
from codeagent.sandboxes.kubernetes import KubernetesDriver
from codeagent.sandboxes.local import LocalDriver
from codeagent.sandboxes.patch_text import MemoryFile, make_patch
from codeagent.sandboxes.protocol import (
    ExecSpec,
    IsolationLevel,
    Limits,
    Reason,
    SandboxDriver,
    SandboxFailure,
    Toolchain,
    Workspace,
)
from codeagent.sandboxes.runsc import RunscDriver
from codeagent.sandboxes.sandboxd.client import RemoteDriver
from codeagent.sandboxes.scripted import Scripted, ScriptedDriver
from tests.integration.kubernetes.support import cluster_on_this_machine
from tests.integration.sandboxes.helper import RunningHelper, running_helper
from tests.integration.sandboxes.support import (
    LIMITS,
    Collected,
    archive,
    ignore,
    require_root_and_bwrap,
    require_root_and_runsc,
)
from tests.services.podman import Podman
from tests.services.root_image import laid_out

REAL: dict[str, Callable[..., LocalDriver]] = {
    "bwrap": BubblewrapDriver,
    "bwrap without parking": partial(BubblewrapDriver, parked=False),
    "runsc": RunscDriver,
}
REQUIRED = {
    "bwrap": require_root_and_bwrap,
    "bwrap without parking": require_root_and_bwrap,
    "runsc": require_root_and_runsc,
}
FILES = {"README": b"hello\n", "src/module.py": b"value = 1\n"}


def shell_of_the_twin(spec: ExecSpec, files: Mapping[str, bytes]) -> Scripted:
    """The few commands of this suite, as a shell would answer them."""
    name, *words = spec.argv
    answers: dict[str, Callable[[], Scripted]] = {
        "true": Scripted,
        "toolchain": lambda: Scripted(exit_code=127),
        "false": lambda: Scripted(exit_code=1),
        "no-such-program": lambda: Scripted(exit_code=127, stderr=b"not found\n"),
        "echo": lambda: Scripted(stdout=" ".join(words).encode() + b"\n"),
        "cat": lambda: Scripted(stdout=files["/".join((spec.cwd, *words))] if words else spec.stdin),
        "sleep": lambda: Scripted(seconds=float(words[0])),
        "cp": lambda: Scripted(writes={words[1]: files[words[0]]}),
        "rm": lambda: Scripted(writes={words[0]: None}),
        "printenv": lambda: Scripted(stdout=spec.env[words[0]].encode() + b"\n"),
        "head": lambda: Scripted(stdout=b"\0" * int(words[1])),
    }
    return answers[name]()


def shell_of_the_image(spec: ExecSpec, _files: Mapping[str, bytes]) -> Scripted:
    return Scripted(exit_code=0 if spec.argv == ("toolchain",) else 127)


@pytest.fixture(scope="module")
def state_dir() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="codeagent-contract-"))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def image() -> Iterator[Path]:
    with laid_out() as root:
        yield root


@pytest.fixture(scope="module")
def helper(state_dir: Path, image: Path) -> Iterator[RunningHelper]:
    require_root_and_bwrap()
    told = ("--images", json.dumps({"toolchain": str(image)}), "--egress-hosts", '["registry.example"]')
    with running_helper(state_dir, arguments=told) as running:
        yield running


@pytest.fixture(params=["scripted", *REAL, "podman", "kubernetes", "remote"])
async def driver(request: pytest.FixtureRequest, state_dir: Path, image: Path) -> AsyncIterator[SandboxDriver]:
    if request.param == "scripted":
        yield cast("SandboxDriver", ScriptedDriver(shell_of_the_twin, images={"toolchain": shell_of_the_image}))
        return
    if request.param == "kubernetes":
        if not os.environ.get("CODEAGENT_TEST_KUBERNETES"):
            pytest.skip(
                "a pod takes seconds: tests/integration/kubernetes has a slice; CODEAGENT_TEST_KUBERNETES=1 runs all"
            )
        async with cluster_on_this_machine(state_dir) as (_, pods):
            yield pods
        return
    if request.param == "remote":
        helper: RunningHelper = request.getfixturevalue("helper")
        remote = RemoteDriver(helper.socket, IsolationLevel.KERNEL)
        await remote.probe()
        yield remote
        await remote.shutdown()
        return
    if request.param == "podman":
        podman: Podman = request.getfixturevalue("podman")
        real: LocalDriver = ContainerDriver(state_dir, podman.options)
    else:
        REQUIRED[request.param]()
        real = REAL[request.param](state_dir, images={"toolchain": str(image)})
    yield real
    await real.shutdown()


@pytest.fixture
async def workspace(driver: SandboxDriver, tmp_path: Path) -> Workspace:
    return await driver.open("contract", archive(tmp_path, FILES), b"", LIMITS)


async def run(driver: SandboxDriver, workspace: Workspace, *argv: str, limits: Limits = LIMITS) -> Reason:
    return (await driver.run(workspace, ExecSpec(argv, limits=limits), ignore)).reason


async def refusal(work: object) -> tuple[str, bool]:
    with pytest.raises(SandboxFailure) as caught:
        await work  # type: ignore[misc]
    return caught.value.reason, caught.value.retryable


def patch_of(after: dict[str, bytes | None]) -> bytes:
    base = {path: MemoryFile(data) for path, data in FILES.items()}
    changed = {**base, **{path: MemoryFile(data) for path, data in after.items() if data is not None}}
    for path in [path for path, data in after.items() if data is None]:
        del changed[path]
    return make_patch(base, changed)


async def test_the_probe_reports_the_level_that_is_kept(driver: SandboxDriver) -> None:
    if isinstance(driver, KubernetesDriver):
        pytest.skip("a stub cluster isolates less than a probe accepts: tests/integration/kubernetes/test_probe.py")
    report = await driver.probe()
    assert (report.driver, report.level) == (driver.name, driver.level)
    assert list(report.images) == ["toolchain"]
    assert report.facts
    assert all(report.facts.values())


async def test_a_record_tells_how_a_command_ended(driver: SandboxDriver, workspace: Workspace) -> None:
    sink = Collected()
    record = await driver.run(workspace, ExecSpec(("echo", "two", "words"), limits=LIMITS), sink)
    assert (record.reason, record.exit_code, record.signal) == (Reason.OK, 0, None)
    assert (record.stdout, record.stdout_seen_bytes, record.stderr) == (b"two words\n", 10, b"")
    assert sink.pieces == {"stdout": b"two words\n", "stderr": b""}
    assert (record.driver, record.level, record.limits_hit) == (driver.name, driver.level, ())
    failed = await driver.run(workspace, ExecSpec(("false",), limits=LIMITS), ignore)
    assert (failed.reason, failed.exit_code) == (Reason.EXIT, 1)
    missing = await driver.run(workspace, ExecSpec(("no-such-program",), limits=LIMITS), ignore)
    assert (missing.reason, missing.exit_code) == (Reason.EXIT, 127)


async def test_input_environment_and_directory_reach_the_command(driver: SandboxDriver, workspace: Workspace) -> None:
    fed = await driver.run(workspace, ExecSpec(("cat",), stdin=b"fed", limits=LIMITS), ignore)
    assert fed.stdout == b"fed"
    told = await driver.run(workspace, ExecSpec(("printenv", "WORD"), env={"WORD": "x"}, limits=LIMITS), ignore)
    assert told.stdout == b"x\n"
    there = await driver.run(workspace, ExecSpec(("cat", "module.py"), cwd="src", limits=LIMITS), ignore)
    assert there.stdout == b"value = 1\n"


async def test_a_command_that_has_to_reach_a_host_has_a_way_out_or_does_not_begin(
    driver: SandboxDriver, workspace: Workspace
) -> None:
    reaching = ExecSpec(("cp", "README", "copy"), limits=LIMITS, egress=("registry.example:443",))
    if driver.reaches_out:
        record = await driver.run(workspace, reaching, ignore)
        assert (record.reason, record.egress) == (Reason.OK, ())
    else:
        assert await refusal(driver.run(workspace, reaching, ignore)) == ("egress_unsupported", False)
        assert await refusal(driver.read_file(workspace, "copy", 100)) == ("no_such_file", False)


async def test_time_and_output_are_limited(driver: SandboxDriver, workspace: Workspace) -> None:
    slow = await driver.run(workspace, ExecSpec(("sleep", "30"), limits=replace(LIMITS, wall_seconds=0.2)), ignore)
    assert (slow.reason, slow.exit_code) == (Reason.TIMEOUT, None)
    kept = replace(LIMITS, output_kept_bytes=10, output_hard_bytes=1000)
    some = await driver.run(workspace, ExecSpec(("head", "-c", "500", "/dev/zero"), limits=kept), ignore)
    assert (some.reason, len(some.stdout), some.stdout_seen_bytes) == (Reason.OK, 10, 500)
    assert some.limits_hit == ("output_truncated",)
    much = await driver.run(workspace, ExecSpec(("head", "-c", "2000", "/dev/zero"), limits=kept), ignore)
    assert (much.reason, len(much.stdout), much.exit_code) == (Reason.OUTPUT_LIMIT, 10, None)
    # More than all pipes on the way hold.
    more = await driver.run(workspace, ExecSpec(("head", "-c", "10000000", "/dev/zero"), limits=kept), ignore)
    assert (more.reason, more.exit_code) == (Reason.OUTPUT_LIMIT, None)
    assert await run(driver, workspace, "true") is Reason.OK


async def test_a_command_can_be_cancelled(driver: SandboxDriver, workspace: Workspace) -> None:
    running = asyncio.ensure_future(run(driver, workspace, "sleep", "30"))
    await asyncio.sleep(0.1)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert await run(driver, workspace, "true") is Reason.OK


async def test_files_are_read_and_written(driver: SandboxDriver, workspace: Workspace) -> None:
    assert await driver.read_file(workspace, "README", 100) == b"hello\n"
    assert await driver.read_file(workspace, "./src//module.py", 10) == b"value = 1\n"
    await driver.write_file(workspace, "new/dir/file", b"\0\xff")
    await driver.write_file(workspace, "README", b"")
    assert await driver.read_file(workspace, "new/dir/file", 2) == b"\0\xff"
    assert await driver.read_file(workspace, "README", 0) == b""
    assert await run(driver, workspace, "cp", "src/module.py", "copy") is Reason.OK
    assert await driver.read_file(workspace, "copy", 100) == b"value = 1\n"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("missing", "no_such_file"),
        ("src", "not_a_file"),
        (".", "not_a_file"),
        ("README/x", "not_a_file"),
        ("", "bad_path"),
        ("/etc/passwd", "bad_path"),
        ("../x", "bad_path"),
        ("src/../../x", "bad_path"),
        ("a\0b", "bad_path"),
        ("x" * 300, "bad_path"),
    ],
)
async def test_paths_are_refused_alike(driver: SandboxDriver, workspace: Workspace, path: str, reason: str) -> None:
    assert await refusal(driver.read_file(workspace, path, 100)) == (reason, False)
    if reason != "no_such_file":
        assert await refusal(driver.write_file(workspace, path, b"x")) == (reason, False)


async def test_a_file_beyond_the_limit_is_not_read(driver: SandboxDriver, workspace: Workspace) -> None:
    assert await refusal(driver.read_file(workspace, "README", 5)) == ("too_large", False)


async def test_a_full_workspace_is_told(driver: SandboxDriver, tmp_path: Path) -> None:
    small = replace(LIMITS, workspace_bytes=1 << 20)
    workspace = await driver.open("small", archive(tmp_path, FILES), b"", small)
    assert await refusal(driver.write_file(workspace, "big", b"x" * (2 << 20))) == ("workspace_full", False)


@pytest.mark.parametrize("argv", [(), ("",), ("a\0b",), ("x" * 200_000,)])
async def test_commands_nobody_could_run_are_refused(
    driver: SandboxDriver, workspace: Workspace, argv: tuple[str, ...]
) -> None:
    assert await refusal(driver.run(workspace, ExecSpec(argv), ignore)) == ("bad_command", False)


@pytest.mark.parametrize("cwd", ["missing", "README", "..", "/tmp"])
async def test_directories_that_are_none_are_refused(driver: SandboxDriver, workspace: Workspace, cwd: str) -> None:
    assert await refusal(driver.run(workspace, ExecSpec(("true",), cwd=cwd), ignore)) == ("bad_path", False)


async def test_changes_are_told_and_restored(driver: SandboxDriver, workspace: Workspace, tmp_path: Path) -> None:
    assert (await driver.diff(workspace, LIMITS)).text == b""
    await driver.write_file(workspace, "src/module.py", b"value = 2\r\nno newline")
    await driver.write_file(workspace, "new binary", bytes(range(256)))
    assert await run(driver, workspace, "rm", "README") is Reason.OK
    patch = await driver.diff(workspace, LIMITS)
    assert patch.files == ("README", "new binary", "src/module.py")
    other = await driver.open("other", archive(tmp_path, FILES), patch.text, LIMITS)
    assert await driver.read_file(other, "src/module.py", 100) == b"value = 2\r\nno newline"
    assert await driver.read_file(other, "new binary", 1000) == bytes(range(256))
    assert await refusal(driver.read_file(other, "README", 100)) == ("no_such_file", False)
    assert (await driver.diff(other, LIMITS)).files == patch.files


async def test_a_patch_made_elsewhere_is_applied(driver: SandboxDriver, tmp_path: Path) -> None:
    patch = patch_of({"README": None, "src/module.py": b"value = 3\n", "added": b"\0\1\2" * 100, "empty": b""})
    workspace = await driver.open("patched", archive(tmp_path, FILES), patch, LIMITS)
    assert await driver.read_file(workspace, "src/module.py", 100) == b"value = 3\n"
    assert await driver.read_file(workspace, "added", 1000) == b"\0\1\2" * 100
    assert (await driver.diff(workspace, LIMITS)).files == ("README", "added", "empty", "src/module.py")


async def test_the_time_of_a_command_is_not_that_of_its_workspace(driver: SandboxDriver, tmp_path: Path) -> None:
    short = replace(LIMITS, wall_seconds=0.1)  # less than a container takes to start
    workspace = await driver.open("short", archive(tmp_path, FILES), b"", short)
    await driver.write_file(workspace, "new", b"x\n")
    assert (await driver.diff(workspace, short)).files == ("new",)


async def test_patches_are_refused_alike(driver: SandboxDriver, workspace: Workspace, tmp_path: Path) -> None:
    source = archive(tmp_path, {"README": b"something else\n", "src/module.py": b"value = 1\n"})
    conflict = patch_of({"README": b"hello world\n"})
    assert await refusal(driver.open("a", source, conflict, LIMITS)) == ("patch_conflict", False)
    assert await refusal(driver.open("b", source, b"junk\n", LIMITS)) == ("patch_refused", False)
    escape = patch_of({"x": b"x\n"}).replace(b"/x", b"/../x")
    assert await refusal(driver.open("c", source, escape, LIMITS)) == ("patch_refused", False)
    few = replace(LIMITS, patch_files=1)
    await driver.write_file(workspace, "one", b"x")
    await driver.write_file(workspace, "two", b"x")
    assert await refusal(driver.diff(workspace, few)) == ("patch_too_large", False)
    await driver.write_file(workspace, "one", b"line\n" * 1000)
    assert await refusal(driver.diff(workspace, replace(LIMITS, patch_bytes=500))) == ("patch_too_large", False)


async def test_archives_are_refused_alike(driver: SandboxDriver, tmp_path: Path) -> None:
    hostile = tmp_path / "hostile.tar.gz"
    hostile.write_bytes(b"not an archive")
    assert await refusal(driver.open("a", hostile, b"", LIMITS)) == ("archive_refused", False)
    large = archive(tmp_path, {"big": b"x" * 2_000_000})
    assert await refusal(driver.open("b", large, b"", replace(LIMITS, workspace_bytes=1 << 20))) == (
        "archive_refused",
        False,
    )


async def test_commands_see_their_image_and_patches_are_made_without_it(driver: SandboxDriver, tmp_path: Path) -> None:
    if isinstance(driver, KubernetesDriver):
        pytest.skip("pods have one image")
    workspace = await driver.open("own", archive(tmp_path, FILES), b"", LIMITS, Toolchain(image="toolchain"))
    for _ in range(2):
        assert await run(driver, workspace, "toolchain") is Reason.OK
    assert await run(driver, workspace, "git", "--version") is Reason.EXIT
    await driver.write_file(workspace, "README", b"changed\n")
    assert (await driver.diff(workspace, LIMITS)).files == ("README",)
    other = await driver.open("usual", archive(tmp_path, FILES), b"", LIMITS)
    assert await run(driver, other, "toolchain") is Reason.EXIT


async def test_a_toolchain_that_is_not_there_is_refused_and_not_replaced(driver: SandboxDriver, tmp_path: Path) -> None:
    source = archive(tmp_path, FILES)
    missing = Toolchain(image="no-such-image")
    assert await refusal(driver.open("a", source, b"", LIMITS, missing)) == ("image_unsupported", False)
    assert await driver.reap(frozenset()) == 0


def installing(*argv: str, limits: Limits = LIMITS) -> ExecSpec:
    return ExecSpec(argv, limits=replace(limits, dependencies_bytes=1 << 20))


async def test_what_is_installed_is_there_for_later_workspaces_and_changes_no_file(
    driver: SandboxDriver, workspace: Workspace, tmp_path: Path
) -> None:
    packed = tmp_path / "packed.tar.gz"
    if isinstance(driver, KubernetesDriver):
        installed = driver.install(workspace, installing("cp", "README", "/dependencies/copy"), packed, ignore)
        assert await refusal(installed) == ("dependencies_unsupported", False)
        return
    record = await driver.install(workspace, installing("cp", "README", "/dependencies/copy"), packed, ignore)
    assert record.reason is Reason.OK
    assert (await driver.diff(workspace, LIMITS)).text == b""
    assert await run(driver, workspace, "cp", "README", "still-there") is Reason.OK
    later = await driver.open("later", archive(tmp_path, FILES), b"", LIMITS, Toolchain(dependencies=packed))
    assert await run(driver, later, "cp", "/dependencies/copy", "out") is Reason.OK
    assert await driver.read_file(later, "out", 100) == FILES["README"]
    assert (await driver.diff(later, LIMITS)).files == ("out",)


async def test_what_fails_to_install_leaves_nothing(
    driver: SandboxDriver, workspace: Workspace, tmp_path: Path
) -> None:
    if isinstance(driver, KubernetesDriver):
        pytest.skip("pods install nothing")
    packed = tmp_path / "packed.tar.gz"
    record = await driver.install(workspace, installing("false"), packed, ignore)
    assert (record.reason, packed.exists()) == (Reason.EXIT, False)


async def test_dependencies_that_are_no_archive_are_refused(driver: SandboxDriver, tmp_path: Path) -> None:
    broken = tmp_path / "broken.tar.gz"
    broken.write_bytes(b"no archive")
    toolchain = Toolchain(dependencies=broken)
    opening = driver.open("a", archive(tmp_path, FILES), b"", LIMITS, toolchain)
    reason = "dependencies_unsupported" if isinstance(driver, KubernetesDriver) else "archive_refused"
    assert await refusal(opening) == (reason, False)
    assert await driver.reap(frozenset()) == 0


async def test_a_closed_workspace_is_gone(driver: SandboxDriver, workspace: Workspace) -> None:
    await driver.close(workspace)
    await driver.close(workspace)
    for work in (
        driver.run(workspace, ExecSpec(("true",)), ignore),
        driver.read_file(workspace, "README", 100),
        driver.write_file(workspace, "README", b""),
        driver.diff(workspace, LIMITS),
    ):
        assert await refusal(work) == ("closed", False)


async def test_closing_ends_what_runs(driver: SandboxDriver, workspace: Workspace) -> None:
    running = asyncio.ensure_future(run(driver, workspace, "sleep", "30"))
    await asyncio.sleep(0.1)
    await driver.close(workspace)
    assert await running is Reason.CANCELED


async def test_a_name_opened_again_is_new(driver: SandboxDriver, workspace: Workspace, tmp_path: Path) -> None:
    await driver.write_file(workspace, "left over", b"x")
    again = await driver.open(workspace.id, archive(tmp_path, FILES), b"", LIMITS)
    assert await refusal(driver.read_file(again, "left over", 100)) == ("no_such_file", False)
    assert await refusal(driver.read_file(workspace, "README", 100)) == ("closed", False)
    await driver.close(workspace)
    assert await driver.read_file(again, "README", 100) == b"hello\n"


async def test_reaping_removes_all_but_the_kept(driver: SandboxDriver, workspace: Workspace, tmp_path: Path) -> None:
    other = await driver.open("other", archive(tmp_path, FILES), b"", LIMITS)
    assert await driver.reap(frozenset({"other", "unknown"})) == 1
    assert await driver.read_file(other, "README", 100) == b"hello\n"
    assert await refusal(driver.read_file(workspace, "README", 100)) == ("closed", False)
    assert await driver.reap(frozenset()) == 1
    assert await driver.reap(frozenset()) == 0


@pytest.mark.parametrize(
    ("url", "ref", "reason"),
    [
        ("http://git.example/r", "", "url_refused"),
        ("ssh://git@git.example/r", "", "url_refused"),
        ("file:///etc/passwd", "", "url_refused"),
        ("https://user:password@git.example/r", "", "url_refused"),
        ("https://git.example/r", "--upload-pack=id", "url_refused"),
        ("https://127.0.0.1/r", "", "address_refused"),
        ("https://10.0.0.1/r", "", "address_refused"),
        ("https://169.254.169.254/r", "", "address_refused"),
        ("https://[::1]/r", "", "address_refused"),
        ("https://localhost/r", "", "address_refused"),
    ],
)
async def test_fetches_are_refused_alike(
    driver: SandboxDriver, tmp_path: Path, url: str, ref: str, reason: str
) -> None:
    if isinstance(driver, KubernetesDriver) and reason == "address_refused":
        reason = "fetch_unsupported"
    assert await refusal(driver.fetch(url, ref, tmp_path / "tree.tar.gz", LIMITS)) == (reason, False)
    assert not (tmp_path / "tree.tar.gz").exists()


async def test_the_twin_finds_the_repositories_it_was_given(tmp_path: Path) -> None:
    twin = ScriptedDriver(repositories={"https://git.example/r": FILES})
    await twin.fetch("https://git.example/r", "main", tmp_path / "tree.tar.gz", LIMITS)
    workspace = await twin.open("fetched", tmp_path / "tree.tar.gz", b"", LIMITS)
    assert await twin.read_file(workspace, "README", 100) == b"hello\n"
    assert await refusal(twin.fetch("https://git.example/other", "", tmp_path / "x", LIMITS)) == ("not_found", False)
