"""A process that writes into a store, for tests that kill it or run several: `root`, `tenant`, `mode`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from codeagent.artifacts.store import LocalArtifactStore

PIECE = b"never finished " * 20_000


async def endless() -> AsyncIterator[bytes]:
    yield PIECE
    yield PIECE
    print("writing", flush=True)
    await asyncio.sleep(60)


async def main(root: str, tenant: str, mode: str) -> None:
    store = LocalArtifactStore(Path(root))
    await store.start()
    if mode == "endless":
        await store.put_stream(tenant, endless(), 1 << 30)
        return
    for number in range(40):
        print(await store.put(tenant, b"shared %d" % number * 2000), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
