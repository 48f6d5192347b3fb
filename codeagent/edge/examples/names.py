"""Names and moments that the examples share, so that they tell one story."""

from __future__ import annotations

RUN_ID = "run_01k5h3v9q7e6t8w2x4y6z8a0b1"
KEY_ID = "key_01k5h3v9q7e6t8w2x4y6z8a0b2"
ACCOUNT_ID = "sva_01k5h3v9q7e6t8w2x4y6z8a0b3"
CREDENTIAL_ID = "cred_01k5h3v9q7e6t8w2x4y6z8a0b6"
LETTER_ID = "dlq_01k5h3v9q7e6t8w2x4y6z8a0b7"
AGENT_ID = "agt_01k5h3v9q7e6t8w2x4y6z8a0b4"
PROJECT_ID = "prj_01k5h3v9q7e6t8w2x4y6z8a0b4"
SESSION_ID = "ses_01k5h3v9q7e6t8w2x4y6z8a0b5"
WEBHOOK_ID = "whk_01k5h3v9q7e6t8w2x4y6z8a0b4"
DIGEST = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
VERIFICATION = {"command": "python -m pytest -q", "protected": ["tests/", "conftest.py"], "timeout_seconds": 300}
SOURCE = {"kind": "archive", "digest": DIGEST}
MORNING, LATER, MONTHS_LATER = "2026-11-23T09:30:00Z", "2026-11-23T09:30:06Z", "2027-02-21T09:30:00Z"
CURSOR = "MjAyNi0xMS0yM1QwOTozMDowMFo"
