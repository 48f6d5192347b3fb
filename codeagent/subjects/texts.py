"""Short texts of subjects in columns of text: sealed, they begin with a mark that no text of ours begins with."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping

from codeagent.subjects.keys import SubjectKeys

_MARK = "\x02"


async def seal_text(keys: SubjectKeys, tenant_id: str, subject: str, text: str, place: str) -> str:
    """Empty once the subject is being erased; as it is where nothing is sealed."""
    key = await keys.of(tenant_id, subject) if text else None
    if key is None:
        return text
    return _MARK + b64encode(key.seal_named(text.encode(), place)).decode() if key.seals else ""


async def open_texts(keys: SubjectKeys, texts: Mapping[str, str]) -> dict[str, str]:
    """Texts by their places, opened; empty where they were erased."""
    sealed = {place: b64decode(text[1:]) for place, text in texts.items() if text.startswith(_MARK)}
    opened = await keys.open_named(sealed) if sealed else {}
    return {place: (opened[place] or b"").decode() if place in sealed else text for place, text in texts.items()}
