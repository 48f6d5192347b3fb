"""Examples about keys, accounts, logins and tokens."""

from __future__ import annotations

from typing import Any

from codeagent.edge.examples.names import ACCOUNT_ID, CREDENTIAL_ID, CURSOR, KEY_ID, LATER, MONTHS_LATER, MORNING

_KEY: dict[str, Any] = {
    "id": KEY_ID,
    "name": "CI",
    "status": "active",
    "hint": "cak_3fQx",
    "principal_id": "usr_1",
    "created_by": "usr_1",
    "scopes": ["runs:read", "runs:write"],
    "networks": ["192.0.2.0/24"],
    "replaces": None,
    "replaced_by": None,
    "version": 1,
    "created_at": MORNING,
    "expires_at": MONTHS_LATER,
    "revoked_at": None,
    "last_used_at": LATER,
}
_CREDENTIAL: dict[str, Any] = {
    "id": CREDENTIAL_ID,
    "provider": "openai",
    "label": "November",
    "state": "active",
    "version": 1,
    "created_by": "usr_1",
    "created_at": MORNING,
    "revoked_at": None,
    "last_used_at": LATER,
}
_ACCOUNT: dict[str, Any] = {
    "id": ACCOUNT_ID,
    "name": "nightly builds",
    "scopes": ["runs:read", "runs:write"],
    "created_at": MORNING,
}
_SESSION: dict[str, Any] = {
    "id": "ses_1",
    "client_id": "console",
    "network": "c0ffee",
    "current": True,
    "created_at": MORNING,
    "last_used_at": LATER,
    "expires_at": MONTHS_LATER,
}

EXAMPLES: dict[str, dict[str, Any]] = {
    "KeyBody": {"name": "CI", "scopes": ["runs:read", "runs:write"], "networks": ["192.0.2.0/24"]},
    "RotateBody": {"overlap_seconds": 3_600},
    "KeyModel": _KEY,
    "MadeKeyModel": {**_KEY, "key": "cak_3fQx..."},
    "KeyPage": {"items": [_KEY], "next_cursor": CURSOR},
    "CredentialBody": {"label": "November", "secret": "sk-..."},
    "CredentialModel": _CREDENTIAL,
    "CredentialPage": {"items": [_CREDENTIAL], "next_cursor": None},
    "ServiceAccountBody": {"name": "nightly builds", "scopes": ["runs:read", "runs:write"]},
    "ServiceAccountModel": _ACCOUNT,
    "NewServiceAccountModel": {**_ACCOUNT, "client_secret": "csa_7hPw..."},
    "ServiceAccountPage": {"items": [_ACCOUNT], "next_cursor": None},
    "MeModel": {
        "id": "usr_1",
        "type": "app_user",
        "tenant_id": "ten_1",
        "scopes": ["agents:read", "projects:read", "providers:read", "runs:read", "usage:read"],
        "role": "viewer",
        "email": "ada@example.org",
        "created_at": MORNING,
        "password_change_required": False,
    },
    "LoginSessionPage": {"items": [_SESSION], "next_cursor": None},
    "PasswordBody": {"current_password": "...", "new_password": "..."},
    "AuthorizeBody": {
        "client_id": "cli",
        "email": "ada@example.org",
        "password": "...",
        "code_challenge": "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
    },
    "CodeModel": {"code": "cac_9dLq...", "expires_in": 60, "iss": "https://codeagent.example.com"},
    "TokenForm": {"grant_type": "refresh_token", "client_id": "cli", "refresh_token": "crt_5mZe..."},
    "RevokeForm": {"token": "crt_5mZe...", "client_id": "cli"},
    "TokenModel": {
        "access_token": "eyJhbGciOiJFUzI1NiIs...",
        "token_type": "Bearer",
        "expires_in": 600,
        "scope": "runs:read runs:write",
        "refresh_token": "crt_5mZe...",
    },
    "OAuthProblem": {"error": "invalid_grant", "error_description": "The refresh token is not valid."},
}
