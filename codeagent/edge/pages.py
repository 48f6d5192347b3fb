"""Lists in pages: how the next one is linked."""

from __future__ import annotations

from urllib.parse import urlencode


def next_link(path: str, **parameters: object) -> str:
    """A `Link` to the next page, with every parameter that has a value; a list is given item by item."""
    query = urlencode({name: value for name, value in parameters.items() if value is not None}, doseq=True)
    return f'<{path}?{query}>; rel="next"'
