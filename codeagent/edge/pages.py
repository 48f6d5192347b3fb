"""Lists in pages: what is asked for, and how the next one is linked."""

from __future__ import annotations

from datetime import date
from typing import Annotated
from urllib.parse import urlencode

from fastapi import Query
from fastapi.responses import Response
from pydantic import BaseModel

from codeagent.edge.answers import PRIVATE, answer

Limit = Annotated[int, Query(ge=1, le=200, description="Items a page.")]
PageCursor = Annotated[str | None, Query(max_length=200, description="`next_cursor` of the page before.")]


def next_link(path: str, **parameters: object) -> str:
    """A `Link` to the next page, with every parameter that has a value; a list is given item by item, a moment as it
    is asked for."""
    written = {name: value.isoformat() if isinstance(value, date) else value for name, value in parameters.items()}
    query = urlencode({name: value for name, value in written.items() if value is not None}, doseq=True)
    return f'<{path}?{query}>; rel="next"'


def page_answer(
    page: BaseModel,
    path: str,
    *,
    cursor: str | None,
    version: int | None = None,
    cache: str = PRIVATE,
    **asked: object,
) -> Response:
    """A page of the list at `path`, linked to the next one where there is a `cursor` for it. `asked` is what the next
    one is to be asked for as well."""
    headers = {} if cursor is None else {"Link": next_link(path, **asked, cursor=cursor)}
    return answer(page, version=version, cache=cache, headers=headers)
