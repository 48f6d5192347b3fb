"""Lines of the audit as events of the Open Cybersecurity Schema Framework (https://schema.ocsf.io), for tools that read
it. It is a rendering: a function of the CloudEvent, which alone proves itself."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from codeagent.messages.envelope import parse_instant, split_type
from codeagent.messages.identity_events import RefreshReuseDetected
from codeagent.messages.privacy_events import BreachRecorded
from codeagent.transparency.ocsf_classes import (
    ACCOUNT_CHANGE,
    API_ACTIVITY,
    AUTHENTICATION,
    BASE_EVENT,
    OTHER,
    Activity,
    EventClass,
    classified,
)

VERSION = "1.8.0"
"""Of the schema."""
RAW = "raw_data"
"""The attribute with the CloudEvent, where the line is to prove itself."""
_PRODUCT = "CodeAgent"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SUCCESS, _FAILURE = {"status_id": 1, "status": "Success"}, {"status_id": 2, "status": "Failure"}
_SEVERITIES = {"success": (1, "Informational"), "failure": (2, "Low"), "denied": (3, "Medium")}
_HIGH = (4, "High")
_ALARMING = frozenset({RefreshReuseDetected.NAME, BreachRecorded.NAME})
"""Somebody should look at them, however they ended."""
_USERS = {"app_user": (1, "User"), "service_account": (4, "Service")}
_OURS = ("type", "outcome", "resourcekind", "resourceid", "clientaddress", "unreadable", "leafhash", "logindex", "data")
"""What no attribute of the schema has, or not in every class, under its own name."""


def ocsf_event(line: Mapping[str, Any]) -> dict[str, Any]:
    """A line of the audit, as a structured CloudEvent with or without its proof, in the other schema. Nothing is in it
    that the line does not say. Raises `Unreadable`, `ValueError` or `KeyError` for what is no line."""
    name, _ = split_type(line["type"])
    kind, activity = classified(name, by_caller=line["authtype"] != "system")
    outcome = line["outcome"]
    told = _event(line, kind, activity, _HIGH if name in _ALARMING else _SEVERITIES[outcome])
    told |= {"message": f"{name}: {outcome}", "actor": _actor(line)}
    if outcome == "success":
        told |= _SUCCESS
    else:
        told |= _FAILURE
        reason = line["data"].get("reason")
        told["status_detail"] = f"{outcome}: {reason}" if isinstance(reason, str) else outcome
    if kind is BASE_EVENT:
        told["metadata"]["profiles"] = ["host"]  # of which the class has its actor
    else:
        told |= _of_class(line, kind, name)
    source, _, stream = line["source"].partition("/streams/")
    told["metadata"]["tenant_uid"] = source.removeprefix("/tenants/")
    told["unmapped"] |= {"stream": stream, "version": int(line["sequence"])}
    return told


def ocsf_ended(line: Mapping[str, Any]) -> dict[str, Any]:
    """The last line of an export: `unmapped.data` is the CloudEvent's `data`."""
    told = _event(line, BASE_EVENT, Activity(OTHER, "Export Ended"), _SEVERITIES["success"])
    told["metadata"]["tenant_uid"] = line["source"].split("/")[2]
    return told | _SUCCESS


def is_ocsf(line: Mapping[str, Any]) -> bool:
    return "class_uid" in line


def _event(line: Mapping[str, Any], kind: EventClass, activity: Activity, severity: tuple[int, str]) -> dict[str, Any]:
    """What every class has."""
    name, version = split_type(line["type"])
    metadata = {
        "version": VERSION,
        "product": {"name": _PRODUCT, "vendor_name": _PRODUCT},
        "uid": line["id"],
        "event_code": name,
        "log_name": "audit",
        "log_version": str(version),
        "original_time": line["time"],
    }
    if "correlationid" in line:
        metadata["correlation_uid"] = line["correlationid"]
    return {
        "metadata": metadata,
        "time": (parse_instant(line["time"]) - _EPOCH) // timedelta(milliseconds=1),
        "class_uid": kind.uid,
        "class_name": kind.name,
        "category_uid": kind.category_uid,
        "category_name": kind.category,
        "activity_id": activity.id,
        "activity_name": activity.name,
        "type_uid": kind.uid * 100 + activity.id,
        "type_name": f"{kind.name}: {activity.name}",
        "severity_id": severity[0],
        "severity": severity[1],
        "unmapped": {name: line[name] for name in _OURS if name in line},
    }


def _actor(line: Mapping[str, Any]) -> dict[str, Any]:
    """By id alone: names are not in the log."""
    kind, identifier = line["authtype"], line["authid"]
    if kind == "system":
        return {"app_name": _PRODUCT, "app_uid": identifier}
    type_id, caption = _USERS.get(kind, (OTHER, kind))
    return {"user": {"uid": identifier, "type_id": type_id, "type": caption}}


def _of_class(line: Mapping[str, Any], kind: EventClass, name: str) -> dict[str, Any]:
    """What the class asks for besides."""
    address = line.get("clientaddress")
    endpoint = {} if address is None else {"src_endpoint": {"ip": address}}
    if kind is API_ACTIVITY:
        resource = {"uid": line["resourceid"], "type": line["resourcekind"]}
        # The class requires one, and addresses are forgotten in time.
        called_from = endpoint or {"src_endpoint": {"name": "unknown"}}
        return {"api": {"operation": name}, "resources": [resource], **called_from}
    type_id, caption = _USERS.get(line["resourcekind"], _USERS["app_user"])
    user = {"user": {"uid": line["resourceid"], "type_id": type_id, "type": caption}}
    if kind is ACCOUNT_CHANGE:
        return user | endpoint
    assert kind is AUTHENTICATION
    session = line["data"].get("session_id")
    told = {"service": {"name": _PRODUCT}, **user, **endpoint}
    return told if session is None else told | {"session": {"uid": session}}
