"""Signals of a component's process: asked to stop, or to read its sources anew."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


@contextmanager
def handled(stop: asyncio.Event, reload: Callable[[], None] | None = None) -> Iterator[None]:
    """SIGTERM and SIGINT set ``stop``; SIGHUP calls ``reload`` where one is given.

    Outside of the main thread, and where the platform has no such signals, nothing is handled: who runs a
    component inside a process of their own sets ``stop`` themselves.
    """
    loop = asyncio.get_running_loop()
    wanted: dict[signal.Signals, Callable[[], None]] = {signal.SIGTERM: stop.set, signal.SIGINT: stop.set}
    if reload is not None:
        wanted[signal.SIGHUP] = reload
    installed = []
    for number, action in wanted.items():
        with suppress(ValueError, RuntimeError, NotImplementedError):
            loop.add_signal_handler(number, action)
            installed.append(number)
    try:
        yield
    finally:
        for number in installed:
            loop.remove_signal_handler(number)
