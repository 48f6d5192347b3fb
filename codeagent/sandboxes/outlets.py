"""Gives one sandbox a way out to named hosts: the proxy's socket inside, a loopback port before it, and the variables
that programs find it by."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from codeagent.sandboxes import runtime
from codeagent.sandboxes.addresses import Lookups
from codeagent.sandboxes.box import Bind, Box
from codeagent.sandboxes.door import listening
from codeagent.sandboxes.egress import Find, Proxy
from codeagent.sandboxes.protocol import SandboxFailure
from codeagent.sandboxes.rootfs import CERTIFICATES_INSIDE, machine_certificates
from codeagent.sandboxes.runtime import Interpreter
from codeagent.sandboxes.sources import TrustedHost
from codeagent.sandboxes.uninterrupted import in_thread

PROXY_URL = "http://127.0.0.1:3128"
_PROXY_PORT = "3128"
_SOCKET_INSIDE = "/run/egress.sock"
_BUNDLE_INSIDE = "/run/certificates.pem"
_FORWARDER = Path(__file__).with_name("inside") / "forward.py"
# Where the sandbox's own programs are, not where the command's environment says.
_OWN_PYTHON = f"""python=$(PATH={runtime.INSIDE}/bin:/usr/local/bin:/usr/bin:/bin command -v python3) || {{
    echo "no python3 is here, which commands need to reach hosts" >&2; exit 127; }}
exec "$python" "$@\""""
FOUND = Interpreter(("/bin/sh", "-c", _OWN_PYTHON, "sh"))
"""The Python of sandboxes that have a `Runtime`, or that of a container's image."""
_PROXY_VARIABLES = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")
_BUNDLE_VARIABLES = (
    "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "CARGO_HTTP_CAINFO",
    "NODE_EXTRA_CA_CERTS",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Outlet:
    """What a sandbox needs to get out. `certificates`: the file inside with the authorities to believe."""

    binds: tuple[Bind, ...]
    forwarder: str
    certificates: str

    def added_to(self, box: Box, python: Interpreter = FOUND) -> Box:
        """The same sandbox with its way out. Its own environment wins; the forwarder is one more process in it, which
        `python` runs."""
        before = (*python.words, "-I", "-S", "-c", self.forwarder, _SOCKET_INSIDE, _PROXY_PORT)
        # The shell gives 126 and 127 their usual meaning here too.
        command = (*before, "/bin/sh", "-c", 'exec "$@"', "sh", *box.command)
        return replace(
            box,
            command=command,
            binds=(*box.binds, *self.binds, *python.binds),
            environment={**self._environment(), **box.environment},
            max_processes=None if box.max_processes is None else box.max_processes + 1,
        )

    def _environment(self) -> dict[str, str]:
        values = dict.fromkeys(_PROXY_VARIABLES, PROXY_URL)
        values |= dict.fromkeys(("NO_PROXY", "no_proxy"), "localhost,127.0.0.1,::1")
        return values | dict.fromkeys(_BUNDLE_VARIABLES, self.certificates)


@asynccontextmanager
async def opened(directory: Path, owner: int, proxy: Proxy, certificates: Sequence[Path] = ()) -> AsyncIterator[Outlet]:
    """An outlet to `proxy` whose files lie in `directory` as long as the body runs. `certificates`, PEM files on this
    machine, take the place of its usual authorities. Raises `SandboxFailure` where they cannot be read."""
    name = f"out-{secrets.token_hex(4)}"
    socket_path, bundle = directory / name, directory / f"{name}.pem"
    # Read-only, since its mode would be changed on the machine; connecting is no writing.
    binds = [Bind(socket_path, _SOCKET_INSIDE)]
    try:
        believed = await in_thread(_believed, certificates, bundle)
        if believed is not None:
            # Not where an image may have its own.
            binds.append(Bind(believed, _BUNDLE_INSIDE))
        forwarder = await in_thread(_FORWARDER.read_text, encoding="utf-8")
        async with listening(socket_path, proxy, owner):
            yield Outlet(tuple(binds), forwarder, CERTIFICATES_INSIDE if believed is None else _BUNDLE_INSIDE)
    finally:
        await in_thread(bundle.unlink, missing_ok=True)


def hosts(authorities: Sequence[str], trusted_hosts: Sequence[TrustedHost]) -> Mapping[str, Find]:
    """How hosts of each entry are looked up for one command: only trusted ones that are listed by name may have an
    address that is not public."""
    trusted = {f"{known.host.lower()}:{known.port}" for known in trusted_hosts}
    lookups = Lookups()
    return {authority: lookups.resolve if authority in trusted else lookups.assert_public for authority in authorities}


def authorities_to_believe(authorities: Sequence[str], trusted_hosts: Sequence[TrustedHost]) -> tuple[Path, ...]:
    """The usual certificate authorities and those of the trusted hosts among `authorities`; none where the usual ones
    will do."""
    own = [
        known.certificates
        for known in trusted_hosts
        if known.certificates is not None and f"{known.host.lower()}:{known.port}" in authorities
    ]
    usual = machine_certificates()
    return () if not own else (*own, *(() if usual is None else (usual,)))


def _believed(sources: Sequence[Path], target: Path) -> Path | None:
    """The file with the authorities to believe: `target`, made of `sources` where there are any, else the machine's."""
    if not sources:
        usual = machine_certificates()
        return None if usual is None else usual.resolve()
    try:
        target.write_bytes(b"\n".join(source.read_bytes() for source in sources))
        target.chmod(0o644)
    except OSError as error:
        why = f"the certificates of the trusted host cannot be copied: {error.strerror}"
        raise SandboxFailure(why, reason="fetch_failed") from error
    return target
