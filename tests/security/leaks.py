"""What no answer may hold: anything that only somebody inside could know."""

from __future__ import annotations

import re

INSIDE = re.compile(
    rb"""
    Traceback | File\ " | \.py\b | site-packages | /proc/ | /tmp/ | /root/ | /home/ | /usr/ | /var/   # code and its places
    | \b(?:asyncpg|aiokafka|pydantic|starlette|fastapi|uvicorn|httptools|cryptography|argon2|valkey)\b  # parts
    | postgres(?:ql)?\b | \bSELECT\ | \bINSERT\ | \bUPDATE\ \w+\ SET | \brelation\ " | \bsqlstate\b     # SQL
    | \b[A-Z]\w+(?:Error|Exception|Warning)\b | \bobject\ at\ 0x                                        # exceptions
    | lax-or-strict | function-(?:plain|after|before|wrap)                                              # validators
    """,
    re.VERBOSE,
)
CREDENTIAL = re.compile(rb"\b(?:cak|crt|cac|cst|cas|whsec)_[A-Za-z0-9_-]{8,}|\beyJ[\w-]+\.[\w-]+\.[\w-]+")


def leaks(body: bytes) -> list[str]:
    """What an error's body tells of the inside; empty for a proper one."""
    return [found.group().decode("latin-1") for pattern in (INSIDE, CREDENTIAL) for found in pattern.finditer(body)]
