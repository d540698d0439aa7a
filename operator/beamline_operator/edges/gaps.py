"""What happened while a watch was broken is found by listing everything, soon after the watch is whole again.

A gap opens for each page of a list that kopf reads: at its start, and again whenever a watch broke, so during
an outage there are many, a second apart. The lists here begin once there was none for :data:`QUIET_S`, or
:data:`PATIENCE_S` after the first: then they come to the server's help, not on top of its trouble. Where they
fail they are made again.

One task, from the first gap until they are closed; :meth:`Gaps.stop` ends it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from ..core.ports import StoreError

QUIET_S: Final = 2.0
"""Longer than kopf's pause between two attempts at a list that is refused."""
PATIENCE_S: Final = 10.0

_log = structlog.get_logger()


class Gaps:
    """Calls ``close`` for gaps; it may raise :class:`StoreError`."""

    def __init__(self, close: Callable[[], Awaitable[None]]) -> None:
        self._close = close
        self._last = 0.0
        self._task: asyncio.Task[None] | None = None

    def opened(self) -> None:
        """A gap opened just now."""
        self._last = asyncio.get_running_loop().time()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._mend(), name="watch-gaps")

    async def stop(self) -> None:
        """Leaves whatever is open to whoever comes next."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _mend(self) -> None:
        loop = asyncio.get_running_loop()
        opened = loop.time()
        closed_until = float("-inf")
        while closed_until < self._last:
            pause = min(self._last + QUIET_S, opened + PATIENCE_S) - loop.time()
            if pause > 0:
                await asyncio.sleep(pause)
                continue
            opened = began = loop.time()
            try:
                await self._close()
            except StoreError as error:
                _log.info("watch.gap_open", error=str(error))
                await asyncio.sleep(QUIET_S)
            else:
                closed_until = began
