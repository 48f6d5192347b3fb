"""What a secret looks like in text, and the text without it. Good enough for excerpts; no proof that none is left."""

from __future__ import annotations

import re

REDACTED = "[redacted]"
_NAMES = (
    r"(?:passw(?:or)?d|passphrase|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|credential|cookie|\bauth\b)"
)
_VALUE = r"(?:'[^']{1,500}'|\"[^\"]{1,500}\"|[^\s,;&'\"]{1,500})"
# Everything is bounded: the text may be written to make matching slow.
_SECRETS = re.compile(
    r"(c(?:ak|rt|ac|as|st)_[\w-]{6})[\w-]{1,500}"
    r"|(eyJ[\w-]{6})[\w-]{1,2000}\.[\w.-]{1,4000}"
    r"|(://[^/\s:@]{0,200}:)[^@\s]{1,200}(?=@)"
    r"|(-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----)[^-]{1,8000}"
    r"|((?i:bearer)\s{1,4})[^\s'\"]{1,2000}|((?i:basic)\s{1,4})[A-Za-z0-9+/=]{12,2000}"
    r"|((?i:x-[\w-]{0,40}(?:key|token)|authorization)\s{0,4}:\s{0,4})(?!(?i:bearer|basic)\s)[^\s'\"]{1,2000}"
    rf"|((?i:{_NAMES})\w{{0,40}}['\"]?\s{{0,4}}[=:]\s{{0,4}}){_VALUE}"
    rf"|((?i:--?[\w-]{{0,40}}{_NAMES}[\w-]{{0,40}})\s{{1,4}})(?!-){_VALUE}"
    r"|((?:-u|--user|--proxy-user)[=\s]{1,4}['\"]?[^\s:'\"]{1,200}:)[^\s'\"]{1,200}"
    r"|(sk-|ghp_|gho_|ghu_|ghs_|ghr_|github_pat_|glpat-|xox[abeoprs]-|hf_|npm_|pypi-|AKIA|ASIA|AIza)[\w-]{8,500}"
)


def without_secrets(text: str) -> str:
    """`text` with the value of whatever looks like a secret blanked. What leads to it, such as a name, stays."""
    return _SECRETS.sub(_blank, text)


def _blank(match: re.Match[str]) -> str:
    return f"{next(group for group in match.groups() if group)}{REDACTED}"
