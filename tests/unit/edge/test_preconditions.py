"""A change names the version it was decided on."""

from __future__ import annotations

import pytest

from codeagent.edge.preconditions import check_match, etag, not_modified
from codeagent.errors import CodeAgentError


@pytest.mark.parametrize("header", ['"3"', '"2", "3"', "*", ' "3" '])
def test_a_tag_of_the_version_lets_the_change_through(header: str) -> None:
    assert etag(3) == '"3"'
    check_match(header, 3)


@pytest.mark.parametrize(
    ("header", "status", "code"),
    [
        (None, 428, "precondition_required"),
        (" ", 428, "precondition_required"),
        ('"2"', 412, "version_mismatch"),
        ('W/"3"', 412, "version_mismatch"),
        ("3", 412, "version_mismatch"),
    ],
)
def test_no_tag_and_an_old_or_weak_one_do_not(header: str | None, status: int, code: str) -> None:
    with pytest.raises(CodeAgentError) as refused:
        check_match(header, 3)
    assert (refused.value.status, refused.value.code) == (status, code)


@pytest.mark.parametrize("header", ['"3"', 'W/"3"', '"1", "3"', "*"])
@pytest.mark.parametrize("tag", ['"3"', 'W/"3"'])
def test_what_the_client_has_is_not_sent_again(header: str, tag: str) -> None:
    assert not_modified(header, tag)


@pytest.mark.parametrize("header", [None, "", '"33"', "3", '"2"'])
def test_what_it_has_not_is_sent(header: str | None) -> None:
    assert not not_modified(header, '"3"')
