"""A git server on loopback: real repositories, over TLS, through git's own `git-http-backend`."""

from __future__ import annotations

import os
import ssl
import subprocess
import threading
from base64 import b64decode
from dataclasses import dataclass, field
from http.server import CGIHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_GIT = ("git", "-c", "user.name=t", "-c", "user.email=t@t", "-c", "init.defaultBranch=main", "-c", "protocol.file.allow=always")  # fmt: skip
_TIDY = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}


def git(folder: Path, *words: str) -> str:
    """Runs git in `folder`, deaf to the configuration of whoever runs the tests; returns what it says."""
    answer = subprocess.run(
        [*_GIT, *words], cwd=folder, env={**os.environ, **_TIDY}, capture_output=True, text=True, check=True
    )
    return answer.stdout.strip()


def backend() -> Path | None:
    """`git-http-backend`, where the machine has it."""
    folder = subprocess.run(["git", "--exec-path"], capture_output=True, text=True, check=True).stdout.strip()
    program = Path(folder, "git-http-backend")
    return program if program.exists() else None


def make_certificate(folder: Path, name: str = "localhost") -> tuple[Path, Path]:
    """Key and certificate of `name`, which nobody has signed but itself."""
    key, certificate = folder / "key.pem", folder / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}",
         "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    return key, certificate


@dataclass
class GitServer:
    """Serves the bare repositories below `root` at `https://localhost:<port>/git/`. Use as a context manager.

    `requests` are the paths asked for. With `redirect_to`, paths that begin with `redirect` are answered with it.
    `password` (as in `user:token`) is asked for, by HTTP Basic, on everything else; `shown` is what was given.
    """

    root: Path
    key: Path
    certificates: Path
    requests: list[str] = field(default_factory=list)
    redirect_to: str = ""
    password: str = ""
    shown: list[str] = field(default_factory=list)
    port: int = 0

    def url(self, path: str = "repo.git") -> str:
        return f"https://localhost:{self.port}/git/{path}"

    def __enter__(self) -> GitServer:
        self._http = _QuietServer(("127.0.0.1", 0), _handler(self))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificates, self.key)
        self._http.socket = context.wrap_socket(self._http.socket, server_side=True, do_handshake_on_connect=False)
        self.port = self._http.server_address[1]
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


class _QuietServer(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        pass


def _handler(server: GitServer) -> type[CGIHTTPRequestHandler]:
    program = backend()
    assert program is not None

    class Handler(CGIHTTPRequestHandler):
        """git-http-backend as a CGI program: the smart protocol, shallow clones included."""

        def is_cgi(self) -> bool:
            server.requests.append(self.path)
            self.cgi_info = "", self.path.lstrip("/")
            return True

        def do_GET(self) -> None:
            if server.redirect_to and self.path.startswith("/git/redirect"):
                server.requests.append(self.path)
                self.send_response(302)
                self.send_header("Location", server.redirect_to)
                self.send_header("Content-Length", "0")
                self.end_headers()
            else:
                super().do_GET()

        def lets_in(self) -> bool:
            scheme, _, words = self.headers.get("authorization", "").partition(" ")
            if scheme:
                server.shown.append(b64decode(words).decode())
            return not server.password or (scheme == "Basic" and server.shown[-1] == server.password)

        def run_cgi(self) -> None:
            if not self.lets_in():
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="git"')
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            path, _, query = self.path.removeprefix("/git").partition("?")
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            environment = {
                "PATH": os.environ["PATH"], "GIT_PROJECT_ROOT": str(server.root), "GIT_HTTP_EXPORT_ALL": "1",
                "PATH_INFO": path, "QUERY_STRING": query, "REQUEST_METHOD": self.command,
                "CONTENT_TYPE": self.headers.get("content-type", ""),
                "GIT_PROTOCOL": self.headers.get("git-protocol", ""),
                "HTTP_CONTENT_ENCODING": self.headers.get("content-encoding", ""), "REMOTE_ADDR": "127.0.0.1",
                "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*",
            }  # fmt: skip
            answer = subprocess.run(
                [str(program)], input=body, env=environment, capture_output=True, check=False
            ).stdout
            head, _, content = answer.partition(b"\r\n\r\n")
            headers = dict(line.split(": ", 1) for line in head.decode().splitlines())
            self.send_response(int(headers.pop("Status", "200 OK").split()[0]))
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    return Handler
