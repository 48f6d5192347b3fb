"""Under what a reply is kept: a digest of all that decides what a model is asked, and for whom."""

from __future__ import annotations

from hashlib import sha256

import orjson

from codeagent import __version__


def reply_key(tenant_id: str, label: str, settings_digest: str, document: bytes) -> str:
    """64 hexadecimal digits. `label` is `<provider>/<name>`, `settings_digest` of what the provider's settings add to a
    request, `document` the whole request as JSON. The program's version is in it: how a request is put to a vendor, and
    what is made of the answer, may be another with the next one."""
    parts = [__version__, tenant_id, label, settings_digest, sha256(document).hexdigest()]
    return sha256(orjson.dumps(parts)).hexdigest()
