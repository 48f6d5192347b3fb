"""Conditional requests (RFC 9110, section 13; RFC 6585): a change names the version it was decided on, and what a
client has already is not sent again."""

from __future__ import annotations

from codeagent.errors import Rejected, VersionMismatch


def etag(version: int) -> str:
    """The strong entity tag of a resource at a version."""
    return f'"{version}"'


def required(if_match: str | None) -> str:
    """Raises `precondition_required` without an If-Match."""
    if if_match is None or not if_match.strip():
        raise Rejected("If-Match with the resource's ETag is required.", code="precondition_required", status=428)
    return if_match


def check_match(if_match: str | None, version: int) -> None:
    """Raises `precondition_required` without an If-Match, `version_mismatch` when none of its tags is the version's."""
    tags = _tags(required(if_match))
    if "*" not in tags and etag(version) not in tags:
        raise VersionMismatch(f"The resource is at version {version}.")


def not_modified(if_none_match: str | None, tag: str) -> bool:
    """Whether the client has the representation that `tag` names. Weak and strong tags are one here."""
    if if_none_match is None:
        return False
    tags = {known.removeprefix("W/") for known in _tags(if_none_match)}
    return "*" in tags or tag.removeprefix("W/") in tags


def _tags(header: str) -> set[str]:
    return {tag.strip() for tag in header.split(",")}
