"""Which class of the OCSF schema an audited event is of, and which activity. Numbers and captions are the schema's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from codeagent.messages import identity_events, privacy_events


@dataclass(frozen=True, slots=True)
class EventClass:
    """A class and its category."""

    uid: int
    name: str
    category_uid: int
    category: str


class Activity(NamedTuple):
    """What was done, in terms of a class. `OTHER` stands for what the class has no number for, with a name of ours."""

    id: int
    name: str


OTHER = 99
BASE_EVENT = EventClass(0, "Base Event", 0, "Uncategorized")
ACCOUNT_CHANGE = EventClass(3001, "Account Change", 3, "Identity & Access Management")
AUTHENTICATION = EventClass(3002, "Authentication", 3, "Identity & Access Management")
API_ACTIVITY = EventClass(6003, "API Activity", 6, "Application Activity")

_LOGON, _LOGOFF, _RENEW = Activity(1, "Logon"), Activity(2, "Logoff"), Activity(5, "Service Ticket Renew")
_CREATE, _ENABLE, _DISABLE, _DELETE = (
    Activity(1, "Create"),
    Activity(2, "Enable"),
    Activity(5, "Disable"),
    Activity(6, "Delete"),
)
_OF_ACCOUNTS: dict[str, tuple[EventClass, Activity]] = {
    identity_events.LoginSucceeded.NAME: (AUTHENTICATION, _LOGON),
    identity_events.LoginFailed.NAME: (AUTHENTICATION, _LOGON),
    identity_events.SessionsRevoked.NAME: (AUTHENTICATION, _LOGOFF),
    identity_events.RefreshReuseDetected.NAME: (AUTHENTICATION, _RENEW),
    identity_events.UserCreated.NAME: (ACCOUNT_CHANGE, _CREATE),
    identity_events.UserRoleChanged.NAME: (ACCOUNT_CHANGE, Activity(OTHER, "Role Change")),
    identity_events.UserRemoved.NAME: (ACCOUNT_CHANGE, _DELETE),
    identity_events.PasswordChanged.NAME: (ACCOUNT_CHANGE, Activity(3, "Password Change")),
    identity_events.PasswordReset.NAME: (ACCOUNT_CHANGE, Activity(4, "Password Reset")),
    identity_events.ServiceAccountCreated.NAME: (ACCOUNT_CHANGE, _CREATE),
    identity_events.ServiceAccountDisabled.NAME: (ACCOUNT_CHANGE, _DISABLE),
    privacy_events.ProcessingRestricted.NAME: (ACCOUNT_CHANGE, _DISABLE),
    privacy_events.RestrictionLifted.NAME: (ACCOUNT_CHANGE, _ENABLE),
    privacy_events.UserErased.NAME: (ACCOUNT_CHANGE, _DELETE),
}
"""All on the stream of the account that they are about."""
_VERBS = {
    Activity(1, "Create"): "added created placed received recorded submitted",
    Activity(2, "Read"): "exported read",
    Activity(3, "Update"): "archived back changed closed completed disabled extended promoted redriven "
    "rejected renamed requested resumed retired rotated set started stopped suspended unarchived updated",
    Activity(4, "Delete"): "deleted discarded lifted removed revoked",
}
_OF_VERBS = {verb: activity for activity, verbs in _VERBS.items() for verb in verbs.split()}
"""How names of events end, as in `agent.version_created` and `project.git_credential.set`."""


def classified(name: str, *, by_caller: bool) -> tuple[EventClass, Activity]:
    """Of an event's name. `by_caller`: somebody has asked for it from outside, and not the system itself."""
    if name in _OF_ACCOUNTS:
        return _OF_ACCOUNTS[name]
    verb = name.rpartition(".")[2].rpartition("_")[2]
    other = Activity(OTHER, verb.capitalize())
    return (API_ACTIVITY, _OF_VERBS.get(verb, other)) if by_caller else (BASE_EVENT, other)
