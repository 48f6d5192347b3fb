"""What a command may reach by network: the hosts it was given, by HTTPS through the proxy, and every try is recorded."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from codeagent.sandboxes.bwrap import BubblewrapDriver
from codeagent.sandboxes.containers import ContainerDriver
from codeagent.sandboxes.local import LocalDriver
from codeagent.sandboxes.protocol import ExecRecord, Limits, Reason, Toolchain, Verdict, Workspace
from codeagent.sandboxes.runsc import RunscDriver
from tests.integration.sandboxes.support import LIMITS, archive, require_root_and_runsc, run, shell
from tests.servers.registry import HOST, Registry
from tests.services.podman import Podman
from tests.services.root_image import laid_out


@pytest.fixture(params=["bwrap", "runsc", "podman"])
async def reaching(request: pytest.FixtureRequest, state_dir: Path, registry: Registry) -> AsyncIterator[LocalDriver]:
    """A driver whose operator vouches for the registry."""
    trusted = [registry.trusted]
    if request.param == "podman":
        podman: Podman = request.getfixturevalue("podman")
        driver: LocalDriver = ContainerDriver(state_dir, podman.options, trusted_hosts=trusted)
    elif request.param == "runsc":
        require_root_and_runsc()
        driver = RunscDriver(state_dir, trusted_hosts=trusted)
    else:
        driver = BubblewrapDriver(state_dir, trusted_hosts=trusted)
    yield driver
    await driver.shutdown()
    assert list((state_dir / "workspaces").iterdir()) == []


@pytest.fixture
async def opened(reaching: LocalDriver, tmp_path: Path) -> Workspace:
    return await reaching.open("egress", archive(tmp_path, {"README": b"hello\n"}), b"", LIMITS)


FETCH = """
import http.client, sys, urllib.request
for url in sys.argv[1:]:
    try:
        print(len(urllib.request.urlopen(url, timeout=5).read()))
    except (OSError, http.client.HTTPException) as error:
        print(error)
"""


async def fetch(
    driver: LocalDriver, workspace: Workspace, *urls: str, egress: tuple[str, ...] = (), limits: Limits = LIMITS
) -> ExecRecord:
    return await run(driver, workspace, ("python3", "-I", "-c", FETCH, *urls), limits, egress=egress)


def verdicts(record: ExecRecord) -> list[tuple[str, int, str]]:
    return [(seen.host, seen.port, seen.verdict.value) for seen in record.egress]


async def test_a_listed_host_is_reached_by_its_name_and_the_traffic_is_counted(
    reaching: LocalDriver, opened: Workspace, registry: Registry
) -> None:
    record = await fetch(reaching, opened, f"https://{registry.authority}/pkg", egress=(registry.authority,))
    assert (record.reason, record.stdout, record.limits_hit) == (Reason.OK, b"10\n", ())
    assert registry.asked == ["/pkg"]
    assert verdicts(record) == [(HOST, registry.port, "allowed")]
    assert record.egress[0].sent_bytes > 100
    assert record.egress[0].received_bytes > len(registry.body)


async def test_commands_in_another_image_go_the_same_way_without_a_program_of_it(
    state_dir: Path, registry: Registry, tmp_path: Path
) -> None:
    script = r"""
        exec 3<>/dev/tcp/127.0.0.1/3128 && printf 'CONNECT %s HTTP/1.1\r\n\r\n' "$1" >&3
        read -r line <&3; echo "$line"; command -v python3
    """
    with laid_out() as root:
        driver = BubblewrapDriver(state_dir, trusted_hosts=[registry.trusted], images={"toolchain": str(root)})
        try:
            workspace = await driver.open("own", archive(tmp_path), b"", LIMITS, Toolchain("toolchain"))
            for host, answer, verdict in ((HOST, b" 200 ", "allowed"), ("elsewhere.example", b" 403 ", "host_refused")):
                command = ("bash", "-c", script, "bash", f"{host}:{registry.port}")
                record = await run(driver, workspace, command, egress=(registry.authority,))
                assert answer in record.stdout, record
                assert record.stdout.count(b"\n") == 1, "no Python is found by name"
                assert verdicts(record) == [(host, registry.port, verdict)]
        finally:
            await driver.shutdown()


async def test_without_a_list_there_is_no_way_out_at_all(
    reaching: LocalDriver, opened: Workspace, registry: Registry
) -> None:
    script = "ls /run | grep -c -e egress -e certificates; env | grep -ic proxy; exit 0"
    assert (await shell(reaching, opened, script)).stdout == b"0\n0\n"
    record = await fetch(reaching, opened, f"https://{registry.authority}/pkg")
    assert (record.egress, registry.asked) == ((), [])


async def test_every_other_host_is_refused_and_the_refusal_is_recorded(
    reaching: LocalDriver, opened: Workspace, registry: Registry
) -> None:
    urls = (
        f"https://127.0.0.2:{registry.port}/",
        "https://169.254.169.254/latest",
        "https://other.example/",
        "http://other.example/",
    )
    record = await fetch(reaching, opened, *urls, egress=(registry.authority,))
    assert record.stdout.count(b"403 Forbidden") + record.stdout.count(b"403: Forbidden") == len(urls)
    assert verdicts(record) == [
        ("127.0.0.2", registry.port, "host_refused"),
        ("169.254.169.254", 443, "host_refused"),
        ("other.example", 443, "host_refused"),
        ("", 0, "not_connect"),
    ]
    assert record.limits_hit == ("egress_denied",)
    assert registry.asked == []


async def test_a_listed_name_that_stands_for_a_private_address_is_refused(
    reaching: LocalDriver, opened: Workspace, registry: Registry
) -> None:
    record = await fetch(reaching, opened, "https://rebinding.example/", egress=("rebinding.example:443",))
    assert verdicts(record) == [("rebinding.example", 443, "address_refused")]
    assert record.limits_hit == ("egress_denied",)


async def test_what_goes_through_is_limited(reaching: LocalDriver, opened: Workspace, registry: Registry) -> None:
    registry.body = b"x" * 2_000_000
    limits = replace(LIMITS, egress_bytes=500_000)
    url = f"https://{registry.authority}/large"
    record = await fetch(reaching, opened, url, url, egress=(registry.authority,), limits=limits)
    assert [seen.verdict for seen in record.egress] == [Verdict.BYTES_USED_UP] * 2
    assert sum(seen.received_bytes for seen in record.egress) < 600_000
    assert record.limits_hit == ("egress_denied",)


async def test_direct_connections_lead_nowhere(reaching: LocalDriver, opened: Workspace, registry: Registry) -> None:
    program = f"import socket; socket.create_connection(('127.0.0.1', {registry.port}), 2)"
    record = await run(reaching, opened, ("python3", "-c", program), egress=(registry.authority,))
    assert b"ConnectionRefusedError" in record.stderr
    assert record.egress == ()


@pytest.mark.parametrize(
    ("script", "said", "code"),
    [
        ("no-such-program", b"", 127),
        ("echo out; exit 7", b"out\n", 7),
        ("yes | head -1; echo ${PIPESTATUS[0]}", b"y\n141\n", 0),
        ("kill -9 $$", b"", 137),
        ("cat", b"given\n", 0),
        ("python3 -c 'import os; os.waitpid(-1, 0)' 2>&1 | grep -c ChildProcessError", b"1\n", 0),
    ],
)
async def test_a_command_behaves_as_it_does_without_a_way_out(
    reaching: LocalDriver, opened: Workspace, registry: Registry, script: str, said: bytes, code: int
) -> None:
    for egress in ((), (registry.authority,)):
        record = await run(reaching, opened, ("bash", "-c", script), stdin=b"given\n", egress=egress)
        assert (record.stdout, record.exit_code) == (said, code)


async def test_the_way_out_cannot_be_changed_from_inside(
    reaching: LocalDriver, opened: Workspace, registry: Registry
) -> None:
    """Its mode least of all: it is a socket of the machine, where others may be."""
    program = """
import os
for change in (lambda: os.chmod(path, 0o777), lambda: os.chown(path, -1, 0), lambda: os.unlink(path),
               lambda: os.rename(path, path + "2"), lambda: os.link(path, "/workspace/link")):
    try:
        change()
        print("changed")
    except OSError as error:
        pass
print(oct(os.stat(path).st_mode))
"""
    program = program.replace("path", "'/run/egress.sock'")
    record = await run(reaching, opened, ("python3", "-c", program), egress=(registry.authority,))
    assert (record.reason, record.stdout) == (Reason.OK, b"0o140600\n")


async def test_nothing_of_the_way_out_is_left(
    reaching: LocalDriver, opened: Workspace, registry: Registry, state_dir: Path
) -> None:
    await fetch(reaching, opened, f"https://{registry.authority}/pkg", egress=(registry.authority,))
    assert list(state_dir.glob("workspaces/*/out-*")) == []
