"""Faults on purpose, under load: what callers see while a part is gone, slow or flapping, and that it ends.
``make test-chaos`` runs them, and nothing else does.

Three things hold in every case: each request is answered or refused in time with an error that says why,
nobody hangs, and afterwards everything is as before without anybody's help.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator

import pytest

from harness.fleet import Fleet, Traffic, fleet

RATE = 30.0
KNOWN = {200, 429, 502, 503, 504}
"""Answers, and refusals that a caller can act on. An exception of the client is none of them."""
DEADLINE_S = 5.0
"""Of the policy: nobody waits for longer, plus what a busy machine adds."""


@pytest.fixture
async def running() -> AsyncIterator[Fleet]:
    async with fleet() as found:
        yield found


def orderly(found: Traffic) -> None:
    """Every request got a status that it can act on, within its deadline."""
    print(found)
    assert set(found.statuses) <= KNOWN, found
    assert found.percentile(1.0) < DEADLINE_S + 5, found


async def during(running: Fleet, seconds: float, fault: object) -> Traffic:
    """Load while ``fault`` (a coroutine) runs."""
    assert asyncio.iscoroutine(fault)
    sending = asyncio.create_task(running.send([(seconds, RATE)]))
    await fault
    found = await sending
    orderly(found)
    return found


async def recovered(running: Fleet) -> None:
    """All is as before."""
    await running.serves("main")
    after = await running.send([(3.0, RATE)])
    print(f"afterwards: {after}")
    assert after.availability == 1.0, after
    assert set(after.providers) == {"main"}, after


async def test_a_nats_that_is_killed_costs_what_it_takes_to_come_back(running: Fleet) -> None:
    nats = running.world.nats

    async def fault() -> None:
        await asyncio.sleep(1)
        nats.stop(signal.SIGKILL)
        await asyncio.sleep(2)
        nats.start()

    found = await during(running, 6, fault())
    assert found.statuses[503] > 0, "there is no way to the extensions"
    await recovered(running)


async def test_a_nats_that_freezes_is_noticed(running: Fleet) -> None:
    nats = running.world.nats

    async def fault() -> None:
        await asyncio.sleep(1)
        nats.freeze()
        await asyncio.sleep(3)
        nats.thaw()

    await during(running, 6, fault())
    await recovered(running)


async def test_a_nats_that_flaps_is_come_back_to_each_time(running: Fleet) -> None:
    nats = running.world.nats

    async def fault() -> None:
        for _ in range(4):
            await asyncio.sleep(0.7)
            nats.stop(signal.SIGKILL)
            await asyncio.sleep(0.3)
            nats.start()

    found = await during(running, 6, fault())
    assert found.statuses[200] > 0, "answers between two outages"
    await recovered(running)


async def test_a_database_that_is_gone_costs_nothing(running: Fleet) -> None:
    postgres = running.world.postgres

    async def fault() -> None:
        await asyncio.sleep(1)
        postgres.stop()
        await asyncio.sleep(3)
        postgres.start()

    found = await during(running, 5, fault())
    assert found.availability == 1.0, found
    await recovered(running)


async def test_a_provider_that_fails_for_everybody_hands_over_to_the_fallback_and_comes_back(
    running: Fleet,
) -> None:
    await running.main_provider(error_rate=1.0)
    await running.serves("spare")
    found = await running.send([(5.0, RATE)])
    orderly(found)
    assert found.availability >= 0.99, found
    assert found.providers["spare"] > found.providers["main"]
    await running.main_provider()
    await recovered(running)


async def test_a_provider_that_gets_slow_is_bounded_by_its_timeout(running: Fleet) -> None:
    await running.main_provider(latency_ms=3_000)
    found = await running.send([(5.0, 10.0)])
    orderly(found)
    await running.main_provider()
    await recovered(running)


async def test_every_second_call_that_fails_is_made_up_for_by_retries_and_the_fallback(
    running: Fleet,
) -> None:
    await running.main_provider(error_rate=0.5)
    found = await running.send([(5.0, RATE)])
    orderly(found)
    assert found.availability >= 0.97, found
    await running.main_provider()
    await recovered(running)


async def test_a_replica_of_a_provider_that_is_killed_is_replaced_by_the_other(running: Fleet) -> None:
    async def fault() -> None:
        await asyncio.sleep(1)
        running.mains[0].stop(signal.SIGKILL)

    found = await during(running, 5, fault())
    assert found.availability >= 0.98, found
    await recovered(running)


async def test_a_router_that_is_told_to_end_finishes_what_it_has(running: Fleet) -> None:
    leaving = running.routers[0]

    async def fault() -> None:
        await asyncio.sleep(1)
        await asyncio.to_thread(leaving.stop)

    sending = asyncio.create_task(running.send([(3.0, RATE)]))
    await fault()
    found = await sending
    print(found)
    assert set(found.statuses) <= {200, 503, "ConnectError"}, "refused at the door, never cut off"
    running.routers.remove(leaving)
    await recovered(running)
