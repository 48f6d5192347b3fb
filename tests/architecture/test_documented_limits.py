"""Numbers and words in the documents are those of the code: a control that is documented is documented truly."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import pytest

from codeagent.agent import compaction, stuck
from codeagent.agent.calls import MOST_READS
from codeagent.identity.api_keys import DEFAULT_LIFE
from codeagent.identity.logins import CODE_LIFETIME
from codeagent.identity.passwords import _WORDS, LONGEST, SHORTEST
from codeagent.identity.sessions import SessionPolicy
from codeagent.identity.throttle import ThrottlePolicy
from codeagent.workers import guidance

ROOT = Path(__file__).resolve().parents[2]
SESSIONS, THROTTLE = SessionPolicy(), ThrottlePolicy()
WORDS = {5: "five", 10: "ten", 15: "fifteen", 20: "twenty"}


def words(name: str) -> str:
    """A document as one line."""
    return re.sub(r"\s+", " ", (ROOT / name).read_text())


def minutes(time: timedelta) -> int:
    return time // timedelta(minutes=1)


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ("docs/logins.md", f"**Passwords** have {SHORTEST} to {LONGEST} characters of any kind, and do not expire"),
        (
            "docs/logins.md",
            f"after {SESSIONS.idle.days} days without use and {SESSIONS.absolute.days} days after the login",
        ),
        ("docs/logins.md", f"an access token that is good for {WORDS[minutes(SESSIONS.access)]} minutes"),
        ("docs/logins.md", f"sent again within {WORDS[SESSIONS.grace.seconds]} seconds from the same network"),
        ("docs/logins.md", f'"expires_in": {CODE_LIFETIME.seconds}'),
        ("docs/logins.md", "a user may have as many as they like"),
        ("docs/logins.md", f"After {WORDS[THROTTLE.account_failures]} in a row for one account"),
        ("docs/logins.md", f"or {WORDS[THROTTLE.address_failures]} from one address"),
        ("docs/logins.md", f"doubles the wait from a second to {WORDS[minutes(THROTTLE.longest)]} minutes"),
        ("docs/logins.md", "Nobody can lock somebody else out for good"),
        ("docs/operations.md", f"{DEFAULT_LIFE.days} days"),
        ("docs/operations.md", "One JSON object a line on standard error"),
        ("docs/operations.md", "how long they are kept and who may read them is the collector's"),
        ("docs/agent-loop.md", " | {} replies, {} rounds, {} rounds |".format(*stuck.ROUNDS.values())),
        ("docs/agent-loop.md", f"at most {MOST_READS} of a run"),
        ("docs/agent-loop.md", f"up to {guidance.TEXT_CHARACTERS} characters"),
        ("docs/agent-loop.md", f"at most {guidance.MOST_FILES} in all"),
        ("docs/agent-loop.md", f"at most {guidance.MOST_SKILLS} skills"),
        ("docs/agent-loop.md", f"more than {guidance.FILE_BYTES >> 10} KiB"),
        ("docs/agent-loop.md", f"estimated at {compaction.CHARACTERS_PER_TOKEN} characters a token"),
        ("docs/agent-loop.md", f"compacted down to {compaction.DOWN_TO:.0%}".replace("%", " %")),
        ("docs/agent-loop.md", f"more than {compaction.SHORT} characters"),
        ("docs/agent-loop.md", f"with no file changed | {stuck.FAILING} replies |"),
        ("docs/agent-loop.md", f"do not count as new | {stuck.IDLE} replies |"),
        *(("docs/operations.md", f"`{event}`") for event in ("credential.refused", "access.denied", "request.crashed")),
    ],
)
def test_the_documents_say_what_the_code_does(document: str, text: str) -> None:
    assert text in words(document)


def test_the_words_that_are_documented_as_refused_are_refused() -> None:
    [listed] = re.findall(r"words of such an installation \(([^)]+)\)", words("docs/logins.md"))
    assert set(re.findall(r"`(\w+)`", listed)) <= set(_WORDS)


def test_the_security_policy_says_within_which_time() -> None:
    policy = words("SECURITY.md")
    for wanted in ("within 3 days", "7 days", "30 days", "90 days", "known weakness", "security.txt"):
        assert wanted in policy
