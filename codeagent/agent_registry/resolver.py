"""Which version a new run is given: looked up by name, and remembered for a second."""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from codeagent.agent_registry import tables
from codeagent.agent_registry.agent import BUILTIN, BUILTIN_CONTENT, AgentVersion, VersionState, definition_of
from codeagent.agent_registry.canary import Unit, takes
from codeagent.agent_registry.tables import Offered
from codeagent.errors import InvalidInput, Rejected
from codeagent.eventlog.database import Database
from codeagent.messages.values import AgentDefinition, ApprovalPolicy, Assignment, LimitsAsked

REMEMBERED_SECONDS = 1.0
"""How long another edge may give runs the version that was active before. What a version says never changes."""
MOST_REMEMBERED = 10_000

_REFERENCE = re.compile(r"([a-z0-9-]{1,63})(?:@([1-9][0-9]{0,8}))?")
_Key = tuple[str, str, int | None]


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a run is given of its agent. `definition` is None for a built-in agent, `model` where runs may have any;
    `fallbacks` stand in for that model, or for the installation's."""

    name: str
    number: int
    model: str | None
    limits: LimitsAsked
    approvals: ApprovalPolicy | None
    definition: AgentDefinition | None
    fallbacks: tuple[str, ...] = ()
    description: str = ""
    delegates: tuple[str, ...] = ()
    """Agents that the version names, as it names them."""


class AgentResolver:
    """Costs nothing for a built-in agent, and otherwise one look-up a second for each version that is asked for."""

    def __init__(
        self,
        database: Database,
        *,
        remembered_seconds: float = REMEMBERED_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._seconds = remembered_seconds
        self._monotonic = monotonic
        self._remembered: OrderedDict[_Key, tuple[float, Offered]] = OrderedDict()

    async def resolve(self, tenant_id: str, reference: str, unit: Unit, *, drafts: bool) -> Resolved:
        """`reference` is `name`, for the active version or that of a canary, which `unit` decides, or `name@number`;
        `drafts` whether a draft may be tried.

        Raises `InvalidInput` (`unsupported_agent`) for what a new run cannot have, `Rejected` (`insufficient_scope`)
        for a draft.
        """
        found = _REFERENCE.fullmatch(reference)
        if found is None:
            raise _unsupported(f"There is no agent {reference!r}.")
        name, number = found[1], int(found[2]) if found[2] else None
        if name in BUILTIN:
            if number not in {None, 1}:
                raise _unsupported(f"Agent {name!r} has no version {number}.")
            content = BUILTIN_CONTENT
            about = BUILTIN[name].description
            return Resolved(name, 1, content.model, content.limits, content.approvals, None, (), about)
        offered = await self._offered((tenant_id, name, number))
        version, assignment = _assigned(name, number, offered, unit)
        if version.state is VersionState.DRAFT and not drafts:
            detail = f"Version {version.number} of agent {name!r} is a draft: trying it takes the scope agents:write."
            raise Rejected(detail, code="insufficient_scope", status=403)
        content = version.content
        return Resolved(
            name,
            version.number,
            content.model,
            content.limits,
            content.approvals,
            definition_of(version, assignment),
            content.fallbacks,
            offered.description,
            content.delegates,
        )

    async def _offered(self, key: _Key) -> Offered:
        remembered = self._remembered.get(key)
        if remembered is not None and remembered[0] > self._monotonic():
            return remembered[1]
        # Counted from before the look-up: what is remembered is never older than it says.
        until = self._monotonic() + self._seconds
        offered = await self._looked_up(*key)
        self._remembered.pop(key, None)
        self._remembered[key] = until, offered
        if len(self._remembered) > MOST_REMEMBERED:
            self._remembered.popitem(last=False)
        return offered

    async def _looked_up(self, tenant_id: str, name: str, number: int | None) -> Offered:
        found = await tables.find_for_run(self._database, tenant_id, name, number)
        if found is None:
            raise _unsupported(f"There is no agent {name!r}.")
        if found.archived:
            raise _unsupported(f"Agent {name!r} is archived.")
        return found

    def forget(self, tenant_id: str, name: str) -> None:
        """What this edge has changed holds for its next run."""
        for key in [key for key in self._remembered if key[:2] == (tenant_id, name)]:
            del self._remembered[key]


def _assigned(name: str, number: int | None, offered: Offered, unit: Unit) -> tuple[AgentVersion, Assignment]:
    """The version of a run, and by which rule it is. Raises `InvalidInput` (`unsupported_agent`)."""
    version, canary = offered.version, offered.canary
    if version is None:
        missing = "no active version" if number is None else f"no version {number}"
        raise _unsupported(f"Agent {name!r} has {missing}.")
    if version.state is VersionState.RETIRED:
        raise _unsupported(f"Version {number} of agent {name!r} is retired.")
    if number is not None:
        return version, Assignment(rule="named", deprecated=version.state is VersionState.DEPRECATED)
    if canary is None or offered.canary_version is None:
        return version, Assignment(rule="active")
    if takes(version.agent_id, canary, unit):
        return offered.canary_version, Assignment(rule="canary", by=unit.kind, canary=canary.began)
    return version, Assignment(rule="active", by=unit.kind, canary=canary.began)


def _unsupported(detail: str) -> InvalidInput:
    return InvalidInput(detail, code="unsupported_agent", pointer="/agent")
