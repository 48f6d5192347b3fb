"""What a client would take (RFC 9110, section 12.5.1), against all that this API makes."""

from __future__ import annotations

from functools import lru_cache

from codeagent.errors import Rejected

_MADE = ("application/json", "application/problem+json", "application/octet-stream", "text/event-stream")


def check_acceptable(accept: str | None) -> None:
    """Raises `not_acceptable` for a client that wants none of it, such as a page. No header means anything."""
    if accept is not None and not _acceptable(accept):
        raise Rejected(f"There is {', '.join(_MADE)} here.", code="not_acceptable", status=406)


@lru_cache(maxsize=256)
def _acceptable(accept: str) -> bool:
    return any(_takes(item) for item in accept.split(",")) or not accept.strip()


def _takes(item: str) -> bool:
    media_range, *parameters = (part.strip().lower() for part in item.split(";"))
    weights = [parameter[2:].strip() for parameter in parameters if parameter.startswith("q=")]
    if weights and not weights[0].strip("0."):
        return False
    kind, _, subtype = media_range.partition("/")
    if subtype == "*":
        return kind == "*" or any(made.startswith(f"{kind}/") for made in _MADE)
    return media_range in _MADE
