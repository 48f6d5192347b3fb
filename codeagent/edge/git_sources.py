"""Which git repositories may be named in a request."""

from __future__ import annotations

from collections.abc import Sequence

from codeagent.errors import InvalidInput
from codeagent.sandboxes.protocol import SandboxFailure
from codeagent.sandboxes.sources import TrustedHost, check_ref, parse_source

SOURCE_URL, SOURCE_REF = "/source/url", "/source/ref"


def check_git_url(url: str, trusted_hosts: Sequence[TrustedHost] = (), *, pointer: str = SOURCE_URL) -> str:
    """The address as it will be fetched. Refuses what the fetch would refuse, and names that cannot be public unless
    the operator trusts them. Where any other name leads is checked when it is fetched."""
    try:
        source = parse_source(url, trusted_hosts)
    except SandboxFailure as refused:
        raise InvalidInput(_sentence(refused), code="unsupported_git_url", pointer=pointer) from None
    if source.trusted is None and not _may_be_public(source.host):
        raise InvalidInput("The host must be a public name.", code="unsupported_git_url", pointer=pointer)
    return source.url


def _may_be_public(host: str) -> bool:
    # Top-level domains begin with a letter; what does not is an address in one of its many spellings.
    last = host.rpartition(".")[2]
    return "." in host and last[:1].isalpha() and not host.endswith((".local", ".internal", ".localhost"))


def check_git_ref(ref: str, *, pointer: str = SOURCE_REF) -> None:
    try:
        check_ref(ref)
    except SandboxFailure as refused:
        raise InvalidInput(_sentence(refused), code="unsupported_git_ref", pointer=pointer) from None


def _sentence(refused: SandboxFailure) -> str:
    return f"{refused.detail[:1].upper()}{refused.detail[1:]}."
