"""Refusals that tell a client how to come in (RFC 6750, section 3; RFC 9728, section 5.1)."""

from __future__ import annotations

from collections.abc import Iterable

from codeagent.edge.problems import HttpProblem

METADATA_PATH = "/.well-known/oauth-protected-resource"


def unauthenticated(public_url: str, *, shown: bool, expired: bool = False, detail: str = "") -> HttpProblem:
    """`shown`: there was a credential, which is not good. `detail` where more can be said of it."""
    code = "token_expired" if expired else "unauthenticated"
    usual = "The access token has expired." if expired else "A valid API key or access token is needed."
    detail = detail or usual
    attributes = {"error": "invalid_token", "error_description": detail} if shown else {}
    return HttpProblem(detail, code=code, status=401, headers=_challenge(public_url, attributes))


def insufficient_scope(public_url: str, missing: Iterable[str]) -> HttpProblem:
    scope = " ".join(missing)
    attributes = {"error": "insufficient_scope", "scope": scope}
    detail = f"The credential lacks {scope.replace(' ', ', ')}."
    return HttpProblem(detail, code="insufficient_scope", status=403, headers=_challenge(public_url, attributes))


def _challenge(public_url: str, attributes: dict[str, str]) -> dict[str, str]:
    named = {"realm": "codeagent", "resource_metadata": f"{public_url}{METADATA_PATH}", **attributes}
    return {"WWW-Authenticate": "Bearer " + ", ".join(f'{name}="{value}"' for name, value in named.items())}
