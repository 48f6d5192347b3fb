"""The OAuth clients: our own command line and console, which keep no secret, and every service account."""

from __future__ import annotations

import hashlib
import re
from base64 import urlsafe_b64encode
from secrets import compare_digest
from typing import ClassVar

from codeagent.errors import CodeAgentError
from codeagent.identity.scopes import ALL, Scope, parse_scopes

FIRST_PARTY = frozenset({"cli", "console"})
CODE_CHALLENGE_METHOD = "S256"
_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
_VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}")


class OAuthError(CodeAgentError):
    """A refusal in OAuth's own words: `error` is one of RFC 6749, section 5.2 and 4.1.2.1."""

    code: ClassVar[str] = "invalid_request"
    status: ClassVar[int] = 400

    def __init__(self, error: str, detail: str, *, status: int = 400) -> None:
        super().__init__(detail, code=error, status=status)


def check_client(client_id: str) -> None:
    """Raises `invalid_client` unless it is one of ours."""
    if client_id not in FIRST_PARTY:
        raise OAuthError("invalid_client", "There is no such client.", status=401)


def check_challenge(challenge: str, method: str) -> None:
    if method != CODE_CHALLENGE_METHOD or _CHALLENGE.fullmatch(challenge) is None:
        raise OAuthError("invalid_request", "code_challenge must be the S256 challenge of a code verifier.")


def answers_challenge(verifier: str, challenge: str) -> bool:
    """Whether this is the verifier that the challenge was made from (RFC 7636)."""
    if _VERIFIER.fullmatch(verifier) is None:
        return False
    made = urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    return compare_digest(made, challenge)


def wanted_scopes(scope: str | None) -> frozenset[Scope]:
    """The scopes a client asks for; all where it says nothing. Raises `invalid_scope`."""
    if scope is None:
        return ALL
    try:
        return parse_scopes(scope)
    except ValueError:
        raise OAuthError("invalid_scope", "The scope names something that does not exist.") from None
