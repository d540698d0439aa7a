"""The overload probe ends when it is cancelled, whatever swallows the cancellation on the way."""

from __future__ import annotations

import asyncio
from typing import Any

from beamline_router.core.overload import Shedder
from beamline_router.edges import overload_probe
from beamline_router.edges.overload_probe import OverloadProbe


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


async def test_a_cancellation_that_nats_py_forgets_still_ends_the_probe(monkeypatch: Any) -> None:
    monkeypatch.setattr(overload_probe, "_IDLE_S", 0.0)
    client: Any = ForgetfulClient()
    task = asyncio.ensure_future(OverloadProbe(Shedder(), lambda: 0, lambda: client).run())
    await client.asked.wait()
    task.cancel()
    await asyncio.wait({task}, timeout=5)
    assert task.cancelled()
    assert client.flushes == 1
