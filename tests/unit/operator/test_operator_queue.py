"""The work queue's rules, with time by hand; and the batcher's, on a fake registry."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from beamline_contract.objects import ObjectKey
from beamline_contract.projection import ExtensionRecord
from beamline_operator.core.batcher import FULL, Batcher
from beamline_operator.core.queue import WorkQueue
from beamline_operator.fakes import ManualClock, MemoryHints
from beamline_registry.memory import MemoryRegistry
from beamline_registry.port import (
    InvalidRecordError,
    Outcome,
    RegistryUnavailableError,
    SchemaError,
    Upsert,
    Write,
    WriteResult,
)

A, B = ObjectKey("Extension", "ns", "a"), ObjectKey("Extension", "ns", "b")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def queue(clock: ManualClock) -> WorkQueue:
    return WorkQueue(clock, jitter=lambda: 0.5)


async def test_a_key_that_waits_is_there_once(queue: WorkQueue) -> None:
    queue.add(A)
    queue.add(A)
    queue.add(B)
    assert [await queue.get(), await queue.get()] == [A, B]
    assert len(queue) == 0


async def test_a_key_added_while_worked_on_comes_back_afterwards_and_not_before(queue: WorkQueue) -> None:
    queue.add(A)
    assert await queue.get() == A
    queue.add(A)
    assert len(queue) == 0
    queue.done(A)
    assert await queue.get() == A


async def test_of_two_delays_the_earlier_counts(queue: WorkQueue, clock: ManualClock) -> None:
    queue.add_after(A, 10)
    queue.add_after(A, 2)
    queue.add_after(A, 5)
    clock.advance(2)
    assert len(queue) == 1
    assert await queue.get() == A
    queue.done(A)
    clock.advance(10)
    assert len(queue) == 0, "the later ones are dropped"


async def test_working_on_a_key_drops_its_timer(queue: WorkQueue, clock: ManualClock) -> None:
    queue.add_after(A, 5)
    queue.add(A)
    queue.done(await queue.get())
    clock.advance(10)
    assert len(queue) == 0


async def test_delays_double_to_two_and_a_half_seconds_with_jitter_upwards(queue: WorkQueue) -> None:
    assert [round(queue.retry(A), 2) for _ in range(4)] == [1.1, 2.2, 2.75, 2.75]
    queue.forget(A)
    assert round(queue.retry(A), 2) == 1.1


async def test_a_cancelled_getter_loses_no_key(queue: WorkQueue) -> None:
    first, second = asyncio.create_task(queue.get()), asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add(A)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert await second == A


async def test_idle_means_nothing_due_and_nothing_worked_on(queue: WorkQueue) -> None:
    await queue.wait_idle()
    queue.add(A)
    idle = asyncio.create_task(queue.wait_idle())
    key = await queue.get()
    await asyncio.sleep(0)
    assert not idle.done()
    queue.done(key)
    await idle


async def test_closing_drops_what_waits(queue: WorkQueue, clock: ManualClock) -> None:
    queue.add(A)
    queue.add_after(B, 1)
    queue.close()
    clock.advance(2)
    assert len(queue) == 0
    await queue.wait_idle()


def upsert(name: str, **fields: Any) -> Upsert:
    record = ExtensionRecord(
        id=name, type="pre", subject=f"beamline.ext.pre.{name}.v1", namespace="ns", name=name,
        uid=f"uid-{name}", generation=1, **fields,
    )  # fmt: skip
    return Upsert(record, "test")


class CountingRegistry(MemoryRegistry):
    """Counts transactions; refuses a batch that holds the record named poison."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    async def write(self, writes: Sequence[Write], *, epoch: int) -> list[WriteResult]:
        self.batches.append(len(writes))
        for write in writes:
            if isinstance(write, Upsert) and write.record.id == "poison":
                raise InvalidRecordError("Extension", "poison", "holds U+0000")
        return await super().write(writes, epoch=epoch)


async def test_writes_that_arrive_together_are_one_transaction_and_one_hint() -> None:
    registry, hints = CountingRegistry(), MemoryHints()
    epoch = await registry.acquire_epoch("test")
    batcher = Batcher(registry, hints, lambda: epoch, linger_s=0)
    results = await asyncio.gather(*(batcher.submit(upsert(f"e{number}")) for number in range(50)))
    assert registry.batches == [50]
    assert hints.announced == [1]
    assert {result[0].outcome for result in results} == {Outcome.WRITTEN}
    await batcher.submit(upsert("e1"))
    assert hints.announced == [1], "nothing changed, nothing is told"
    await batcher.stop()


async def test_a_poisoned_record_keeps_nobody_else_out() -> None:
    registry, hints = CountingRegistry(), MemoryHints()
    epoch = await registry.acquire_epoch("test")
    batcher = Batcher(registry, hints, lambda: epoch, linger_s=0)
    results = await asyncio.gather(
        *(batcher.submit(upsert(name)) for name in ("a", "poison", "b")), return_exceptions=True
    )
    assert isinstance(results[1], InvalidRecordError)
    assert [row.id for row in (await registry.read(0)).extensions] == ["a", "b"]


async def test_an_outage_reaches_everyone_who_waits() -> None:
    registry = MemoryRegistry()
    registry.outage = RegistryUnavailableError("down")
    batcher = Batcher(registry, MemoryHints(), lambda: 1, linger_s=0)
    results = await asyncio.gather(*(batcher.submit(upsert(name)) for name in "ab"), return_exceptions=True)
    assert [type(result) for result in results] == [RegistryUnavailableError] * 2


async def test_a_transaction_waits_for_company_in_a_crowd_but_not_when_it_is_full(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("beamline_operator.core.batcher.CROWD_PACE_S", 3600.0)
    registry = CountingRegistry()
    epoch = await registry.acquire_epoch("test")
    batcher = Batcher(registry, MemoryHints(), lambda: epoch, linger_s=0)
    batcher.crowded = lambda: True
    first = [asyncio.create_task(batcher.submit(upsert(f"first{number}"))) for number in range(FULL)]
    await asyncio.gather(*first)
    waiting = [asyncio.create_task(batcher.submit(upsert(f"more{number}"))) for number in range(FULL - 1)]
    for _ in range(5):
        await asyncio.sleep(0)
    assert registry.batches == [FULL], "until its pause is over, unless it is full before"
    waiting.append(asyncio.create_task(batcher.submit(upsert("last"))))
    await asyncio.wait_for(asyncio.gather(*waiting), 10)
    assert registry.batches == [FULL, FULL]
    await batcher.stop()


async def test_a_schema_that_does_not_fit_is_one_failed_transaction_and_a_fault(monkeypatch: Any) -> None:
    registry, hints = CountingRegistry(), MemoryHints()
    batcher = Batcher(registry, hints, lambda: 1, linger_s=0)
    monkeypatch.setattr(MemoryRegistry, "write", _unfit)
    results = await asyncio.gather(*(batcher.submit(upsert(name)) for name in "abc"), return_exceptions=True)
    assert [type(result) for result in results] == [SchemaError] * 3
    assert registry.batches == [3]
    assert batcher.fault == "run `beamline migrate`", "/readyz says so"


async def _unfit(*_: Any, **__: Any) -> list[WriteResult]:
    raise SchemaError("run `beamline migrate`")
