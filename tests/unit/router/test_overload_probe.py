"""What the overload probe measures, and that it ends when it is cancelled."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import urlsplit

import pytest

from beamline_router.core.overload import Shedder
from beamline_router.edges import overload_probe
from beamline_router.edges.overload_probe import OverloadProbe


class Quiet:
    """No load at all."""

    in_flight = 0
    ended = 0


class ForgetfulClient:
    """A client whose flush swallows a cancellation, as ``asyncio.wait_for`` of Python 3.11 may."""

    is_connected = True

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.flushes = 0

    async def flush(self, _timeout: int) -> None:
        self.flushes += 1
        self.asked.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return


@pytest.mark.parametrize("work", [OverloadProbe.run, OverloadProbe.opened])
async def test_a_cancellation_that_nats_py_forgets_still_ends_the_probe(work: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(overload_probe, "_IDLE_S", 0.0)
    client: Any = ForgetfulClient()
    task = asyncio.ensure_future(work(OverloadProbe(Shedder(), Quiet(), lambda: client)))
    await client.asked.wait()
    task.cancel()
    await asyncio.wait({task}, timeout=5)
    assert task.cancelled()
    assert client.flushes == 1


class Busy:
    """Much in flight."""

    in_flight = 100
    ended = 0


class Sampled(Shedder):
    """Keeps what it is told."""

    __slots__ = ("idle",)

    def __init__(self) -> None:
        super().__init__()
        self.idle: list[bool] = []

    def sample(self, delay_s: float, now: float, *, in_flight: int, ended: int, idle: bool = False) -> None:
        self.idle.append(idle)


async def test_a_loop_that_slept_between_two_samples_had_no_queue(monkeypatch: Any) -> None:
    monkeypatch.setattr(overload_probe, "_BUSY_S", 0.0)
    counts = iter([10, 10, 11, 40])
    told = Sampled()

    def sleeps() -> int:
        found = next(counts, None)
        if found is None:
            raise asyncio.CancelledError
        return found

    with pytest.raises(asyncio.CancelledError):
        await OverloadProbe(told, Busy(), lambda: None, sleeps).run()
    assert told.idle == [False, False, True]


class Distant:
    """A client of a server that is 20 ms away, and was late once."""

    is_connected = True

    def __init__(self) -> None:
        self.server = "one:4222"
        self.trips = 0

    @property
    def connected_url(self) -> Any:
        return urlsplit(f"nats://{self.server}")

    async def flush(self, _timeout: int) -> None:
        self.trips += 1
        await asyncio.sleep(0.02 if self.trips > 1 else 0.06)


class Told(Shedder):
    """Keeps the distances that it is told."""

    __slots__ = ("distances",)

    def __init__(self) -> None:
        super().__init__()
        self.distances: list[float | None] = []

    def forget(self, distance_s: float | None = None) -> None:
        self.distances.append(distance_s)


async def test_the_distance_of_a_server_is_measured_once_and_holds_for_all_connections_to_it() -> None:
    told, client = Told(), Distant()
    nc: Any = client
    probe = OverloadProbe(told, Quiet(), lambda: nc)
    probe.reconnected()
    await probe.opened()
    probe.reconnected()
    client.server = "other:4222"
    probe.reconnected()
    unknown, measured, same, other = told.distances
    assert unknown is other is None
    assert measured is not None
    assert 0.02 <= measured < 0.06
    assert same == measured
    assert client.trips == 3


async def test_the_system_counts_the_sleeps_of_the_loop() -> None:
    before = overload_probe.thread_sleeps()
    for _ in range(10):
        await asyncio.sleep(0.001)
    assert overload_probe.thread_sleeps() >= before + 5
