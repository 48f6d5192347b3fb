"""Secrets that are none: examples, defaults, and what is guessed in an afternoon."""

from __future__ import annotations

LEAST_CHARACTERS = 16
LEAST_DIFFERENT = 6
_WORDS = frozenset(
    {"admin", "codeagent", "default", "letmein", "password", "postgres", "root", "s3cret", "secret", "test", "token"}
)
_MARKS = ("replace", "changeme", "change_me", "change-me", "example", "placeholder", "your_", "your-", "<")


def weakness(secret: str) -> str:
    """What is wrong with a secret, as the end of a sentence that begins with its name; empty where nothing is."""
    plain = secret.strip().lower()
    if any(mark in plain for mark in _MARKS):
        return "is an example"
    if plain.rstrip("0123456789!") in _WORDS:
        return "is a default"
    if len(plain) < LEAST_CHARACTERS:
        return f"is shorter than {LEAST_CHARACTERS} characters"
    if len(set(plain)) < LEAST_DIFFERENT:
        return "repeats itself"
    return ""
