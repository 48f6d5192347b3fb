"""Keeps a listener to live text from harming the call it listens to: late or failing, it is not told the rest."""

from __future__ import annotations

import asyncio
import logging

from codeagent.providers.protocol import TextSink

_log = logging.getLogger(__name__)


class LossySink:
    """Passes text on until the listener fails or takes longer than `patience_seconds`; then drops it."""

    def __init__(self, on_text: TextSink, *, patience_seconds: float = 2.0) -> None:
        self._on_text = on_text
        self._patience_seconds = patience_seconds
        self._muted = False

    async def __call__(self, text: str) -> None:
        if self._muted or not text:
            return
        try:
            async with asyncio.timeout(self._patience_seconds):
                await self._on_text(text)
        except Exception as error:
            self._muted = True
            _log.warning("live text dropped: the listener failed (%s)", type(error).__name__)
