"""The published OCSF schema, of a version that another implementation brings, and what is wrong with an event by it."""

from __future__ import annotations

from functools import cache
from typing import Any

import jsonschema
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema

_CAPTIONS = {
    "activity_id": "activity_name",
    "category_uid": "category_name",
    "class_uid": "class_name",
    "severity_id": "severity",
    "status_id": "status",
    "type_uid": "type_name",
}
"""Attributes, and the siblings of theirs that say the same in words."""
_OTHER = 99


@cache
def _schema(version: str) -> OcsfJsonSchemaEmbedded:
    return OcsfJsonSchemaEmbedded(get_ocsf_schema(version=version))


@cache
def _class(version: str, uid: int) -> dict[str, Any]:
    [found] = [each for each in get_ocsf_schema(version=version)["classes"].values() if each["uid"] == uid]
    return dict(found)


@cache
def _validator(version: str, uid: int, profiles: tuple[str, ...]) -> jsonschema.Draft202012Validator:
    schema = _schema(version)
    name = schema.lookup_class_name_from_uid(class_uid=uid)
    return jsonschema.Draft202012Validator(schema.get_class_schema(class_name=name, profiles=list(profiles)))


def problems(event: dict[str, Any]) -> list[str]:
    """What the schema says against an event: attributes that are missing, unknown or malformed, and words that are not
    those of their numbers."""
    metadata, uid = event["metadata"], event["class_uid"]
    validator = _validator(metadata["version"], uid, tuple(metadata.get("profiles", ())))
    found = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(event)]
    attributes = _class(metadata["version"], uid)["attributes"]
    for number, words in _CAPTIONS.items():
        if number not in event:
            continue
        caption = attributes[number]["enum"].get(str(event[number]), {}).get("caption")
        if event[number] % 100 != _OTHER and event[words] != caption:
            found.append(f"$.{words}: {event[words]!r} for {event[number]}, which is {caption!r}")
    return found
