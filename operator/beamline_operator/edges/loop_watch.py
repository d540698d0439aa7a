"""Notices that the event loop is blocked, and says by what.

A task of the loop notes the time every half second. A thread looks at that note; when it is older than the
limit, it logs the stack of the loop's thread, once per block, and how long it was when it ends. The thread is
a daemon and holds nothing, so it never keeps the process from ending.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import traceback
from typing import Final

import structlog

BEAT_S: Final = 0.5
LIMIT_S: Final = 2.0
_FRAMES: Final = 12

_log = structlog.get_logger()


class LoopWatch:
    """Watches the loop that calls :meth:`start`. ``blocks`` counts, ``longest_s`` is the longest so far."""

    def __init__(self, *, limit_s: float = LIMIT_S, beat_s: float = BEAT_S) -> None:
        self.blocks = 0
        self.longest_s = 0.0
        self._limit_s = limit_s
        self._beat_s = beat_s
        self._beat = time.monotonic()
        self._thread_id = 0
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def age_s(self) -> float:
        """Seconds since the loop last turned."""
        return time.monotonic() - self._beat

    async def start(self) -> None:
        """Starts beating and watching."""
        self._thread_id = threading.get_ident()
        self._beat = time.monotonic()
        self._task = asyncio.create_task(self._keep_beating(), name="loop-beat")
        self._thread = threading.Thread(target=self._look, name="loop-watch", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        """Ends both."""
        self._over.set()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, 2 * self._beat_s + 1)

    async def _keep_beating(self) -> None:
        while True:
            self._beat = time.monotonic()
            await asyncio.sleep(self._beat_s)

    def _look(self) -> None:
        blocked: float | None = None
        while not self._over.wait(self._beat_s / 2):
            age = self.age_s
            if blocked is None and age > self._limit_s:
                blocked = self._beat
                self.blocks += 1
                _log.error("loop.blocked", seconds=round(age, 1), frames=self._stack())
            elif blocked is not None and self._beat != blocked:
                lasted = self._beat - blocked
                self.longest_s = max(self.longest_s, lasted)
                _log.warning("loop.unblocked", seconds=round(lasted, 1))
                blocked = None

    def _stack(self) -> list[str]:
        frame = sys._current_frames().get(self._thread_id)
        if frame is None:
            return []
        return [
            f"{place.filename}:{place.lineno} {place.name}"
            for place in traceback.extract_stack(frame)[-_FRAMES:]
        ]
