"""Somebody else's coroutine within a time limit, whatever it does about being cancelled.

``asyncio.timeout`` waits until what it cancels has ended; code that swallows the cancellation would hold up a
shutdown for ever. So the work is a task of its own: it is cancelled, given a moment, and then left behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

import structlog

log = structlog.get_logger()
T = TypeVar("T")

_MOMENT_S: Final = 0.2


async def within(seconds: float, work: Coroutine[Any, Any, T], what: str) -> T:
    """The result of ``work``. Raises what it raises, and TimeoutError after ``seconds``."""
    task = asyncio.create_task(work, name=what)
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds)
    except asyncio.CancelledError:
        await _end(task, what)
        raise
    if done:
        return task.result()
    await _end(task, what)
    raise TimeoutError(f"{what} took longer than {seconds:g} s")


async def _end(task: asyncio.Task[Any], what: str) -> None:
    task.cancel()
    done, _ = await asyncio.wait({task}, timeout=_MOMENT_S)
    if done:
        if not task.cancelled():
            task.exception()  # looked at: its text is nobody's business any more
    else:
        log.warning("registry.left_behind", what=what)
