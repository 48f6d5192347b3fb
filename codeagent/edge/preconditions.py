"""Lost updates are refused: a change names the version it was decided on (RFC 9110, section 13.1.1; RFC 6585)."""

from __future__ import annotations

from codeagent.errors import Rejected, VersionMismatch


def etag(version: int) -> str:
    """The strong entity tag of a resource at a version."""
    return f'"{version}"'


def check_match(if_match: str | None, version: int) -> None:
    """Raises `precondition_required` without an If-Match, `version_mismatch` when none of its tags is the version's."""
    if if_match is None or not if_match.strip():
        raise Rejected("If-Match with the resource's ETag is required.", code="precondition_required", status=428)
    tags = {tag.strip() for tag in if_match.split(",")}
    if "*" not in tags and etag(version) not in tags:
        raise VersionMismatch(f"The resource is at version {version}.")
