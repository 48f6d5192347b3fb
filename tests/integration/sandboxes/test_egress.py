"""What a command may reach by network: the hosts it was given, by HTTPS through the proxy, and every try is recorded."""

from __future__ import annotations

import http.server
import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from codeagent.addresses import Address
from codeagent.sandboxes import addresses, outlets
from codeagent.sandboxes.bwrap import BubblewrapDriver
from codeagent.sandboxes.containers import ContainerDriver
from codeagent.sandboxes.local import LocalDriver
from codeagent.sandboxes.protocol import ExecRecord, Limits, Reason, Verdict, Workspace
from codeagent.sandboxes.runsc import RunscDriver
from codeagent.sandboxes.sources import TrustedHost
from tests.conftest import unavailable
from tests.integration.sandboxes.support import LIMITS, archive, require_root_and_runsc, run, shell
from tests.servers.git_server import make_certificate
from tests.services.podman import Podman

HOST = "registry.example"


@dataclass
class Registry:
    """An HTTPS server on loopback, which the tests call `registry.example`."""

    port: int
    certificates: Path
    asked: list[str] = field(default_factory=list)
    body: bytes = b"a package\n"

    @property
    def authority(self) -> str:
        return f"{HOST}:{self.port}"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    try:
        return make_certificate(tmp_path_factory.mktemp("tls"), HOST)
    except FileNotFoundError:
        unavailable("openssl is not installed")


@pytest.fixture
def registry(certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    key, certificates = certificate

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", str(len(found.body)))
            self.end_headers()
            self.wfile.write(found.body)

        def log_message(self, *_: object) -> None:
            pass

    async def resolve(host: str, _port: int) -> tuple[Address, ...]:
        return (ip_address("127.0.0.1" if host == HOST else "10.1.2.3"),)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates, key)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    found = Registry(server.server_address[1], certificates)
    monkeypatch.setattr(addresses, "resolve", resolve)
    monkeypatch.setattr(outlets, "resolve", resolve)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield found
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(params=["bwrap", "runsc", "podman"])
async def reaching(request: pytest.FixtureRequest, state_dir: Path, registry: Registry) -> AsyncIterator[LocalDriver]:
    """A driver whose operator vouches for the registry."""
    trusted = [TrustedHost(HOST, registry.port, registry.certificates)]
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
