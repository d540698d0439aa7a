"""Registry writes that arrive together become one transaction and one hint.

A write waits while another batch is in flight, and at most a couple of milliseconds otherwise; in a stream of
writes until :data:`PACE_S` after the last batch began, in a crowd until :data:`CROWD_PACE_S` after it, or
until :data:`FULL` writes are there. A transaction takes a dozen statements however many rows it writes: at a
hundred writes a second they were a fifth of the operator's work. Each caller gets the result of its own
write. A batch that fails for a reason other than a database that is away or has another schema, or a lost
lease, is written one by one, so that one poisoned record can't keep its neighbours out.

The batcher owns one task, started by the first write and ended by :meth:`Batcher.stop`, which waits for what
is in flight. Cancelling a caller does not cancel its write: whether it was written is unknown, and writing
again is safe.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

import structlog

from beamline_registry.port import (
    FencedError,
    Outcome,
    RegistryError,
    RegistryUnavailableError,
    RegistryWriter,
    SchemaError,
    Write,
    WriteResult,
)

from .ports import Hints

MAX_BATCH: Final = 500
LINGER_S: Final = 0.002
PACE_S: Final = 0.025
CROWD_PACE_S: Final = 0.1
FULL: Final = 12
"""So many writes wait for no more: fewer than there are workers, each of which waits for its own."""

_log = structlog.get_logger()

_Waiting: TypeAlias = tuple[tuple[Write, ...], asyncio.Future[list[WriteResult]]]


class Batcher:
    """Collects writes. ``epoch`` is asked for at the moment of each transaction."""

    def __init__(
        self, registry: RegistryWriter, hints: Hints, epoch: Callable[[], int], *, linger_s: float = LINGER_S
    ) -> None:
        self._registry = registry
        self._hints = hints
        self.fault: str | None = None
        """Why the last transaction did not reach the registry; None while it answers."""
        self.crowded: Callable[[], bool] = lambda: False
        """Whether so many objects are due that a transaction for a few of them is a waste."""
        self._epoch = epoch
        self._linger_s = linger_s
        self._full: asyncio.Future[None] | None = None
        """Done when :data:`FULL` writes are there; None while nothing waits for that."""
        self._began = float("-inf")
        self._waiting: list[_Waiting] = []
        self._task: asyncio.Task[None] | None = None

    async def submit(self, *writes: Write) -> list[WriteResult]:
        """The results of ``writes``, which stay in order and in one batch. Raises what the registry's write
        raises.
        """
        future: asyncio.Future[list[WriteResult]] = asyncio.get_running_loop().create_future()
        self._waiting.append((writes, future))
        if len(self._waiting) >= FULL and self._full is not None and not self._full.done():
            self._full.set_result(None)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._drain(), name="registry-batcher")
        return await future

    async def stop(self) -> None:
        """Waits until everything that was submitted has its result."""
        if self._task is not None:
            await asyncio.wait({self._task})

    async def _drain(self) -> None:
        while self._waiting:
            await self._gathered()
            self._began = asyncio.get_running_loop().time()
            batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
            await self._write(batch)

    async def _gathered(self) -> None:
        """Returns when it is time for a transaction."""
        if len(self._waiting) >= FULL:
            return
        loop = asyncio.get_running_loop()
        pace = CROWD_PACE_S if self.crowded() else PACE_S
        self._full = loop.create_future()
        pause = max(self._linger_s, min(pace, self._began + pace - loop.time()))
        await asyncio.wait({self._full}, timeout=pause)
        self._full = None

    async def _write(self, batch: Sequence[_Waiting]) -> None:
        try:
            results = await self._registry.write(
                [write for writes, _ in batch for write in writes], epoch=self._epoch()
            )
        except (FencedError, RegistryUnavailableError, SchemaError) as error:
            self.fault = str(error)
            _fail(batch, error)
        except RegistryError as error:
            if len(batch) == 1:
                _fail(batch, error)
                return
            _log.warning("registry.batch_split", writes=len(batch), error=str(error))
            for single in batch:
                await self._write([single])
        except Exception as error:  # noqa: BLE001 -- the callers are waiting: they must hear of it whatever it is
            _fail(batch, error)
        else:
            self.fault = None
            rest = iter(results)
            for writes, future in batch:
                own = [next(rest) for _ in writes]
                if not future.done():
                    future.set_result(own)
            written = [result.revision for result in results if result.outcome is Outcome.WRITTEN]
            if written:
                await self._hints.changed(max(written))


def _fail(batch: Sequence[_Waiting], error: Exception) -> None:
    for _, future in batch:
        if not future.done():
            future.set_exception(error)
