"""Does PostgreSQL answer? Asked every few seconds by leader and standby alike, for ``/readyz``: an operator
that has nothing to write would not notice, and a standby without it could not take over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from beamline_registry.port import RegistryError

EVERY_S: Final = 3.0


class RegistryProbe:
    """``fault`` is what the last ``ping`` came to; None where it was answered, or not asked yet."""

    def __init__(self, ping: Callable[[], Awaitable[None]], *, every_s: float = EVERY_S) -> None:
        self.fault: str | None = None
        self._ping = ping
        self._every_s = every_s

    async def run(self) -> None:
        """Asks for ever."""
        while True:
            try:
                await self._ping()
            except RegistryError as error:
                self.fault = str(error)
            else:
                self.fault = None
            await asyncio.sleep(self._every_s)
