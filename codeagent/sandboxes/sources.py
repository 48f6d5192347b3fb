"""Which repositories may be named for fetching: public https URLs, and refs that are nothing but refs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from codeagent.sandboxes.protocol import SandboxFailure

_HTTPS_PORT = 443
_REF = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/+-]{0,199}")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|\[[0-9a-fA-F:.]+\]")


@dataclass(frozen=True, slots=True)
class TrustedHost:
    """A host the operator vouches for: it may have a private address, another port, and a CA of its own (PEM file)."""

    host: str
    port: int = _HTTPS_PORT
    certificates: Path | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """A repository to fetch. `authority`: host:port, as a client names it to a proxy."""

    url: str
    authority: str
    host: str
    port: int
    trusted: TrustedHost | None


def _refused(detail: str) -> SandboxFailure:
    return SandboxFailure(detail, reason="url_refused", retryable=False)


def parse_source(url: str, trusted_hosts: Sequence[TrustedHost] = ()) -> Source:
    """Raises `SandboxFailure` (`url_refused`) unless `url` is a plain https URL of a repository."""
    try:
        parts = urlsplit(url)
        port = parts.port or _HTTPS_PORT
    except ValueError:
        raise _refused("the URL cannot be read") from None
    host = (parts.hostname or "").lower()
    literal = f"[{host}]" if ":" in host else host
    if parts.scheme != "https" or not url.isascii() or not url.isprintable() or " " in url:
        raise _refused("only https URLs of plain characters can be fetched")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise _refused("the URL may not carry credentials, a query or a fragment")
    if not _HOST.fullmatch(literal) or not parts.path.strip("/"):
        raise _refused("the URL names no host or no repository")
    trusted = next((known for known in trusted_hosts if (known.host.lower(), known.port) == (host, port)), None)
    if port != _HTTPS_PORT and trusted is None:
        raise _refused("only port 443 can be fetched from")
    suffix = "" if port == _HTTPS_PORT else f":{port}"
    return Source(f"https://{literal}{suffix}{parts.path}", f"{literal}:{port}", host, port, trusted)


def check_ref(ref: str) -> None:
    """A branch, a tag, or a full commit id; empty for the default branch. Raises `SandboxFailure` (`url_refused`)."""
    odd = ".." in ref or "//" in ref or ref.endswith(("/", ".", ".lock"))
    if ref and (odd or not _REF.fullmatch(ref)):
        raise SandboxFailure("the ref is not a branch, tag or commit", reason="url_refused", retryable=False)
