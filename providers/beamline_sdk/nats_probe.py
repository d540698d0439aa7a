"""Whether NATS takes connections: one attempt, for people and scripts that ask now."""

from __future__ import annotations

import asyncio
from typing import Final

import nats
from nats.errors import Error

TIMEOUT_S: Final = 5


async def answers(url: str) -> str | None:
    """None where it does, else why not, in words."""
    try:
        async with asyncio.timeout(TIMEOUT_S):
            client = await nats.connect(
                url, allow_reconnect=False, connect_timeout=TIMEOUT_S, error_cb=_unheard
            )
            await client.close()
    except (Error, OSError, TimeoutError, ValueError) as error:
        return str(error) or type(error).__name__
    return None


async def _unheard(_: Exception) -> None:
    """The caller hears of it as the exception of the attempt."""
