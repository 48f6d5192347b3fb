"""A registry of packages on loopback, by HTTPS, which sandboxes know as `registry.example`."""

from __future__ import annotations

import http.server
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

import pytest

from codeagent.addresses import Address
from codeagent.sandboxes.addresses import Lookups
from codeagent.sandboxes.sources import TrustedHost

HOST = "registry.example"


@dataclass
class Registry:
    """What was `asked` of it, and what it answers: `pages` by their path, else `body`."""

    port: int
    certificates: Path
    asked: list[str] = field(default_factory=list)
    pages: dict[str, bytes] = field(default_factory=dict)
    body: bytes = b"a package\n"

    @property
    def authority(self) -> str:
        return f"{HOST}:{self.port}"

    @property
    def trusted(self) -> TrustedHost:
        return TrustedHost(HOST, self.port, self.certificates)


@contextmanager
def serving(key: Path, certificates: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """The registry at work. Every other name stands for a private address meanwhile."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.asked.append(self.path)
            body = found.pages.get(self.path, found.body)
            self.send_response(200)
            self.send_header("Content-Type", "text/html" if self.path.endswith("/") else "application/octet-stream")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    async def resolve(_: object, host: str, _port: int) -> tuple[Address, ...]:
        return (ip_address("127.0.0.1" if host == HOST else "10.1.2.3"),)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates, key)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    found = Registry(server.server_address[1], certificates)
    monkeypatch.setattr(Lookups, "resolve", resolve)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield found
    server.shutdown()
    server.server_close()
    thread.join()
