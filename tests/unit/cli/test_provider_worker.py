"""What a provider worker has behind it when it begins to take calls."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

START = """
import asyncio, sys
from codeagent.cli import services
from codeagent.settings import Settings
from codeagent.workers.effect import EffectLoop

async def start():
    process = await services.provider_worker(Settings())
    for action in process.start:
        name = getattr(action, "__qualname__", "")
        if name == "EffectLoop.start":
            print({name: name in sys.modules for name in ("openai", "anthropic")})
            return
        if name == "Models.preload":  # the others want a database
            await action()

asyncio.run(start())
"""


def test_the_sdks_of_its_vendors_are_imported_before_it_takes_a_call(tmp_path: Path) -> None:
    providers = tmp_path / "providers.json"
    providers.write_text(json.dumps([{"name": "local", "kind": "openai", "base_url": "http://127.0.0.1:1/v1"}]))
    environment = {
        "CODEAGENT_DATABASE_URL": "postgresql://u:p@127.0.0.1:1/d",
        "CODEAGENT_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "CODEAGENT_KAFKA_TIMEOUT_SECONDS": "0.1",
        "CODEAGENT_PROVIDERS_FILE": str(providers),
    }
    done = subprocess.run(
        [sys.executable, "-c", START], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "{'openai': True, 'anthropic': False}\n"
