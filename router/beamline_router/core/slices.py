"""Long work in short pieces: a generator that yields wherever it may be put aside.

Compiling a table of thousands of records takes hundreds of milliseconds. In a thread it would hold the
interpreter while requests wait for it, for as long as the system lets other processes run first. In pieces
on the event loop a request waits for one piece at most.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from itertools import islice
from typing import Final, TypeAlias, TypeVar

T = TypeVar("T")

Sliced: TypeAlias = Generator[None, None, T]
"""Yields between pieces of work and returns the result."""

AT_A_TIME: Final = 8
"""Records between two yields, well below a millisecond's work."""


def finish(work: Sliced[T]) -> T:
    """The result, all pieces done at once."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            value: T = end.value
            return value


def batches(items: Iterable[T]) -> Iterator[list[T]]:
    """The items in lists of at most :data:`AT_A_TIME`."""
    iterator = iter(items)
    while batch := list(islice(iterator, AT_A_TIME)):
        yield batch
