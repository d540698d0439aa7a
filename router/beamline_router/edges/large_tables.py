"""How a table of thousands of records is swapped without a request waiting for it.

Three things would stop the event loop for tens of milliseconds:

- Compiling. It is done in pieces (:mod:`..core.slices`), :data:`TURN_S` of them in each turn of the loop.
- Python's full garbage collection, which reading and compiling provoke by what they allocate and which walks
  the whole table, again and again while it grows. It is put off until they have ended; then the table is
  moved out of the collector's sight (``gc.freeze``), where it need not be looked at again: it holds no
  cycles, so it goes when its last reference goes. The young generations are collected in each turn: left
  alone they grow to thousands of objects, since freeing an old record counts against making a new one.
- Freeing the table before, which would happen at once when the last reference to it is dropped. It is kept
  and dropped in small pieces.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

from ..core.slices import Sliced

T = TypeVar("T")

TURN_S: Final = 0.0002
"""Work is put aside for the event loop once it has gone on for so long."""
_NEVER: Final = 1_000_000_000
_YOUNG: Final = 250
_MIDDLE: Final = 2  # times _YOUNG: the middle generation is collected before that takes a millisecond


async def in_turns(work: Sliced[T]) -> T:
    """The result of work that leaves the event loop to others between its pieces."""
    until = time.perf_counter() + TURN_S
    while True:
        try:
            next(work)
        except StopIteration as end:
            value: T = end.value
            return value
        if time.perf_counter() >= until:
            await asyncio.sleep(0)
            gc.collect(1)
            until = time.perf_counter() + TURN_S


@contextmanager
def taking_in() -> Iterator[None]:
    """Around the reading and the compilation of a table: no full collection meanwhile. May be nested."""
    young, middle, old = gc.get_threshold()
    gc.set_threshold(min(young, _YOUNG), _MIDDLE, _NEVER)
    try:
        yield
    finally:
        gc.set_threshold(young, middle, old)


@contextmanager
def compiling() -> Iterator[None]:
    """Around the compilation of a table that stays: at its end it leaves the collector's sight."""
    with taking_in():
        yield
        gc.collect(1)
        gc.freeze()


async def let_go(parts: list[object]) -> None:
    """Empties the list from its end, one entry in each turn of the loop."""
    while parts:
        parts.pop()
        await asyncio.sleep(0)
