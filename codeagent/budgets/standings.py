"""What budgets have left, by what the projection of usage knows.

A call counts once its event has been folded, a moment after it was recorded; until then, what it has reserved does.
Open runs with a limit on their cost count with all of that limit: what they have not spent of it is reserved.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date

from codeagent import clock
from codeagent.budgets.budget import ALWAYS, COLUMNS, Period, Standing, began_on, budget_of
from codeagent.eventlog.database import Database, Row

_LISTED = ", ".join(f"b.{name.strip()}" for name in COLUMNS.split(","))
_WHOSE = """CASE b.scope WHEN 'project' THEN {0}.project_id = b.scope_id
                         WHEN 'principal' THEN {0}.principal_id = b.scope_id ELSE true END"""

# $1 today, $2 the first of the month.
STANDINGS = f"""
    SELECT {_LISTED}, b.noticed_from, b.noticed_percent, coalesce(u.spent, 0) AS spent,
           coalesce(o.reserved, 0) + coalesce(c.reserved, 0) AS reserved
    FROM budgets b
    CROSS JOIN LATERAL (
        SELECT CASE b.unit WHEN 'usd' THEN sum(d.cost_usd) ELSE sum(d.input_tokens + d.output_tokens) END AS spent
        FROM usage_by_day d
        WHERE d.tenant_id = b.tenant_id AND {_WHOSE.format("d")}
              AND d.day >= CASE b.period WHEN 'day' THEN $1::date WHEN 'month' THEN $2::date
                                         ELSE '{ALWAYS.isoformat()}' END) u
    CROSS JOIN LATERAL (
        SELECT sum(greatest(r.max_cost_usd - r.cost_usd, 0)) AS reserved
        FROM usage_runs r
        WHERE b.unit = 'usd' AND r.tenant_id = b.tenant_id AND r.open AND r.max_cost_usd IS NOT NULL
              AND {_WHOSE.format("r")}) o
    CROSS JOIN LATERAL (
        SELECT sum(CASE b.unit WHEN 'usd' THEN h.usd ELSE h.tokens END) AS reserved
        FROM call_reservations h LEFT JOIN usage_runs m ON m.run_id = h.run_id AND m.max_cost_usd IS NOT NULL
        WHERE h.tenant_id = b.tenant_id AND h.expires_at > clock_timestamp()
              AND (b.unit = 'tokens' OR m.run_id IS NULL) AND {_WHOSE.format("h")}) c
    """  # noqa: S608  constants


def today() -> date:
    """The day that it is in UTC."""
    return clock.now().astimezone(UTC).date()


async def standings(
    database: Database, tenant_id: str, where: str, *arguments: object, day: date | None = None
) -> Sequence[Standing]:
    """Of the budgets that `where` picks, its parameters counted from $3."""
    day = day or today()
    first = began_on(Period.MONTH, day)
    rows = await database.fetch(f"{STANDINGS} {where}", day, first, *arguments, tenant=tenant_id)
    return [standing_of(row) for row in rows]


def standing_of(row: Row) -> Standing:
    return Standing(budget_of(row), row["spent"], row["reserved"])
