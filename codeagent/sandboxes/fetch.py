"""Clones a public repository inside a sandbox that can reach that one host, and keeps its tree as an archive."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from codeagent.addresses import Address
from codeagent.sandboxes import archives, outcome, outlets, repository
from codeagent.sandboxes.addresses import Lookups
from codeagent.sandboxes.box import Bind, Box
from codeagent.sandboxes.egress import Proxy, always
from codeagent.sandboxes.outcome import Observed
from codeagent.sandboxes.protocol import GitCredential, Limits, Reason, SandboxFailure
from codeagent.sandboxes.sources import Source, TrustedHost, check_ref, parse_source
from codeagent.sandboxes.streams import discard
from codeagent.sandboxes.uninterrupted import in_thread
from codeagent.sandboxes.workspaces import OpenWorkspace, Workspaces

_SCRATCH_INSIDE = "/fetch"
_OUTPUT = "tree.tar.gz"
_PROGRAM = Path(__file__).with_name("inside") / "fetch_tree.py"
_LEAST_BYTES_PER_SECOND, _LEAST_SECONDS = 1000, 30


_ENVIRONMENT = {
    **repository.ENVIRONMENT,
    "GIT_DIR": f"{_SCRATCH_INSIDE}/repository",
    "GIT_ALLOW_PROTOCOL": "https",
    "GIT_ASKPASS": "/bin/false",
    "NO_PROXY": "",
    "no_proxy": "",
}
_REFUSALS = (b"Authentication failed", b"The requested URL returned error: 403")
_FINAL_COMPLAINTS = (
    b"could not read Username",
    b"Authentication failed",
    b"not found",
    b"couldn't find remote ref",
    b"not our ref",
    b"does not appear to be a git repository",
)


class Fetcher:
    """Makes archives of repositories. See `SandboxDriver.fetch`."""

    def __init__(self, workspaces: Workspaces, trusted_hosts: Sequence[TrustedHost]) -> None:
        self._workspaces = workspaces
        self._trusted = tuple(trusted_hosts)

    async def fetch(
        self, url: str, ref: str, destination: Path, limits: Limits, credential: GitCredential | None = None
    ) -> None:
        """Raises `SandboxFailure`: `url_refused`, `address_refused`, `too_large`, `not_found` and
        `credential_refused` are final, `fetch_failed` may be tried again."""
        source = parse_source(url, self._trusted)
        check_ref(ref)
        addresses = await self._addresses(source)
        proxy = Proxy({source.authority: always(addresses)}, limits.workspace_bytes)
        async with self._workspaces.opening(f"fetch-{secrets.token_hex(8)}", limits) as workspace:
            try:
                seen = await self._clone(workspace, source, ref or "HEAD", proxy, limits, credential)
                _raise_unless_fetched(seen, proxy, credential)
                await in_thread(_keep, workspace.base, destination, limits)
            finally:
                await self._workspaces.close(workspace)

    async def _clone(
        self,
        workspace: OpenWorkspace,
        source: Source,
        ref: str,
        proxy: Proxy,
        limits: Limits,
        credential: GitCredential | None,
    ) -> Observed:
        own = () if source.trusted is None or source.trusted.certificates is None else (source.trusted.certificates,)
        async with outlets.opened(workspace.directory, workspace.slot_uid, proxy, own) as outlet:
            box = outlet.added_to(await _box(workspace, source, ref, outlet.certificates, limits, credential))
            return await self._workspaces.operate(workspace, box, limits, discard, _told(credential))

    async def _addresses(self, source: Source) -> tuple[Address, ...]:
        if source.trusted is not None:
            return await Lookups().resolve(source.host, source.port)
        return await Lookups().assert_public(source.host, source.port)


async def _box(
    workspace: OpenWorkspace,
    source: Source,
    ref: str,
    certificates: str,
    limits: Limits,
    credential: GitCredential | None,
) -> Box:
    order = {
        "url": source.url,
        "ref": ref,
        "git": [*repository.OPTIONS, *_git_options(certificates)],
        "host": f"https://{urlsplit(source.url).netloc}" if credential is not None else "",
        "attributes": repository.NEUTRAL_ATTRIBUTES,
        "output": f"{_SCRATCH_INSIDE}/{_OUTPUT}",
    }
    program = await in_thread(_PROGRAM.read_text, encoding="utf-8")
    return Box(
        command=("python3", "-I", "-c", program, json.dumps(order)),
        workspace=workspace.files,
        environment=_ENVIRONMENT,
        binds=(Bind(workspace.base, _SCRATCH_INSIDE, writable=True),),
        tmp_bytes=limits.tmp_bytes,
    )


def _git_options(certificates: str) -> list[str]:
    settings = (
        "protocol.allow=never",
        "protocol.https.allow=always",
        f"http.proxy={outlets.PROXY_URL}",
        "http.sslVerify=true",
        f"http.sslCAInfo={certificates}",
        "http.followRedirects=initial",
        f"http.lowSpeedLimit={_LEAST_BYTES_PER_SECOND}",
        f"http.lowSpeedTime={_LEAST_SECONDS}",
        "credential.helper=",
        "fetch.recurseSubmodules=false",
    )
    return [word for setting in settings for word in ("-c", setting)]


def _told(credential: GitCredential | None) -> bytes:
    """A credential in the words of git's helpers, for the program's standard input: nobody else can read that."""
    if credential is None:
        return b""
    return f"username={credential.username}\npassword={credential.token}\n".encode()


def _raise_unless_fetched(seen: Observed, proxy: Proxy, credential: GitCredential | None) -> None:
    reason = outcome.reason_for(seen)
    if reason is Reason.OK:
        return
    if proxy.exhausted or seen.disk_full or seen.inodes_used_up or b"No space left" in seen.stderr:
        raise SandboxFailure("the repository is larger than a workspace may be", reason="too_large", retryable=False)
    if credential is not None and any(complaint in seen.stderr for complaint in _REFUSALS):
        raise SandboxFailure(
            "the git server does not let the project's credential in", reason="credential_refused", retryable=False
        )
    if any(complaint in seen.stderr for complaint in _FINAL_COMPLAINTS):
        raise SandboxFailure("there is no such public repository or ref", reason="not_found", retryable=False)
    words = _without_token(outcome.last_words(seen.stderr), credential)
    if proxy.refused:
        # A redirect, as a rule. Following it would fetch from where nobody has looked.
        raise SandboxFailure(f"the server sends to another host: {words}", reason="address_refused", retryable=False)
    raise SandboxFailure(f"the repository cannot be fetched ({reason}): {words}", reason="fetch_failed")


def _without_token(words: str, credential: GitCredential | None) -> str:
    """What the server has said, should it have repeated what it was shown."""
    return words if credential is None else words.replace(credential.token, "[token]")


def _keep(scratch: Path, destination: Path, limits: Limits) -> None:
    """Copies the archive out, and lets it through only if it would unpack."""
    temporary = destination.with_name(f".{destination.name}.{secrets.token_hex(6)}")
    try:
        handle = os.open(scratch / _OUTPUT, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as made, temporary.open("xb") as kept:
            if not stat.S_ISREG(os.fstat(made.fileno()).st_mode):
                raise SandboxFailure("the repository cannot be fetched", reason="fetch_failed")
            shutil.copyfileobj(made, kept, 1 << 20)
        for _ in archives.entries(temporary, limits):
            pass
        temporary.replace(destination)
    except OSError as error:
        raise SandboxFailure(f"the archive cannot be kept: {error.strerror}", reason="fetch_failed") from error
    finally:
        temporary.unlink(missing_ok=True)
