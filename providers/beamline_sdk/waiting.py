"""Waiting for work, for events and for time, unless somebody says stop."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Final, TypeVar

T = TypeVar("T")

AGAIN_S: Final = 3.0
"""Longer than what a task tidies up when it is cancelled."""


async def unless(stop: asyncio.Event, work: Coroutine[Any, Any, T]) -> tuple[bool, T | None]:
    """Awaits ``work`` unless ``stop`` is set first; (False, None) then, with ``work`` cancelled and gone."""
    task, stopped = asyncio.create_task(work), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([task, stopped], return_when=asyncio.FIRST_COMPLETED)
        return (True, task.result()) if task.done() else (False, None)
    finally:
        await ended(task, stopped)


async def ended(*tasks: asyncio.Future[Any], again_s: float = AGAIN_S) -> None:
    """Cancels ``tasks`` and returns once all of them have ended, whatever they ended with.

    A cancellation can get lost: ``asyncio.wait_for`` of Python 3.11 drops one that comes in the very moment
    in which what it waits for ends, and nats-py goes on to connect, for ever. So whoever still goes on after
    ``again_s`` seconds is told again.
    """
    going: set[asyncio.Future[Any]] = set(tasks)
    while going:
        for task in going:
            task.cancel()
        done, going = await asyncio.wait(going, timeout=again_s)
        for task in done:
            if not task.cancelled():
                task.exception()  # looked at: asyncio would log it


async def first_of(*events: asyncio.Event) -> None:
    """Waits until one of ``events`` is set."""
    tasks = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def sleep_unless(stop: asyncio.Event, seconds: float) -> None:
    """Sleeps, at most until ``stop`` is set."""
    with suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)
