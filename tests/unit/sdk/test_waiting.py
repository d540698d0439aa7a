"""Tasks that are cancelled do end."""

from __future__ import annotations

import asyncio

from beamline_sdk.waiting import ended, unless


async def test_a_task_that_loses_its_cancellation_is_told_again() -> None:
    told = 0

    async def deaf_once() -> None:
        nonlocal told
        while told < 2:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                told += 1
        raise OSError("looked at, and nobody's business")

    task = asyncio.create_task(deaf_once())
    await asyncio.sleep(0)
    await asyncio.wait_for(ended(task, again_s=0.01), 5)
    assert (told, task.done()) == (2, True)


async def test_a_task_that_tidies_up_is_let_finish() -> None:
    tidy = False

    async def careful() -> None:
        nonlocal tidy
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0.05)
            tidy = True

    task = asyncio.create_task(careful())
    await asyncio.sleep(0)
    await ended(task)
    assert tidy


async def test_work_is_gone_when_somebody_says_stop() -> None:
    stop, gone = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            gone.set()

    asyncio.get_running_loop().call_later(0.01, stop.set)
    assert await unless(stop, work()) == (False, None)
    assert gone.is_set()
