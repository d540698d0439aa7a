"""Keeps the router's table: reads the registry, compiles a snapshot, swaps it.

One task (:meth:`Refresher.run`) does all reading, so reads never overlap and a swap is a single assignment
that no request can see half of. What wakes it: its start, a hint of a newer revision, a NATS reconnect
(hints may have been missed), SIGHUP, and its own poll. Wake-ups that arrive while it reads fold into one
more read; a hint of a revision that the table already has is ignored.

A read is bounded. When it fails the last good table serves on, for ever if need be, and the read is tried
again after a back-off with jitter: at first within a second, so that a restart of PostgreSQL goes
unnoticed, later every ten.

Two registries may follow each other under one address (a restored backup, an empty database). A revision that
is lower than ours says so: then, and at the first read after a start from a file, everything is read anew.
The table gives way to it once it is filled (:mod:`..core.going_back`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import structlog

from beamline_contract.projection import ExtensionRecord, PolicyRecord
from beamline_contract.reports import Notice, Refused
from beamline_registry.port import Delta, RegistryError, RegistryReader, SchemaError, SchemaPendingError

from ..core.going_back import LOOK_AGAIN_S, GoingBack
from ..core.slices import Sliced, batches, finish
from ..core.snapshot import Compilation, Snapshot, compile_in_slices, compile_snapshot
from . import snapshot_file
from .census import counting, ids_in
from .large_tables import compiling, in_turns, let_go, taking_in
from .telemetry import Telemetry

log = structlog.get_logger()

DEFAULT_POLL_S: Final = 30.0
READ_LIMIT_S: Final = 10.0
FIRST_BACKOFF_S: Final = 0.5
MAX_BACKOFF_S: Final = 10.0
SAVE_EVERY_S: Final = 5.0
"""The file is written at most this often, and at the end: under many changes it would cost more than they
do.
"""
_POLL_JITTER: Final = 0.2


class Draw(Protocol):
    """Uniform in [0, 1): ``random.Random().random``."""

    def __call__(self) -> float: ...


@dataclass(slots=True)
class CacheStats:
    """Contract.md, "Registry". ``last_reload`` is Unix seconds, 0.0 before the first."""

    last_reload: float = 0.0
    load_count: int = 0
    error_count: int = 0
    total_extensions: int = 0
    enabled_extensions: int = 0


class Refresher:
    """Owns the current snapshot. ``on_swap`` is awaited after each; ``clock`` is monotonic, ``wall`` Unix
    seconds.
    """

    def __init__(
        self,
        reader: RegistryReader,
        telemetry: Telemetry,
        *,
        draw: Draw,
        poll_s: float = DEFAULT_POLL_S,
        file: Path | None = None,
        on_swap: Callable[[], Awaitable[None]] | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._reader = reader
        self._telemetry = telemetry
        self._draw = draw
        self._poll_s = poll_s
        self._file = file
        self._on_swap = on_swap
        self._clock = clock
        self._wall = wall
        self._extensions: dict[str, ExtensionRecord] = {}
        self._policies: dict[str, PolicyRecord] = {}
        self._named: dict[str, set[str]] = {}
        """The ids that each policy names."""
        self._current_at = clock()  # when the table was last known to be the registry's
        self._wake = asyncio.Event()
        self._wanted = 0
        self._failures = 0
        self._read_all = False
        self._going_back = GoingBack()
        self._unsaved = False
        self._save_fault: str | None = None
        self._saved_at = -SAVE_EVERY_S
        self.snapshot: Snapshot | None = None
        self.refused: tuple[Refused, ...] = ()
        self.notices: tuple[Notice, ...] = ()
        self.stats = CacheStats()
        self.from_file = False
        telemetry.table_age(self.age)

    @property
    def revision(self) -> int:
        """The registry revision that is served; 0 before the first table."""
        return self.snapshot.revision if self.snapshot is not None else 0

    @property
    def registry_answers(self) -> bool:
        """Whether the last read worked."""
        return self.stats.load_count > 0 and self._failures == 0

    def age(self) -> float:
        """Seconds since the table was last known to be current (since the file was written, after a start
        from it).
        """
        return max(0.0, self._clock() - self._current_at)

    def hint(self, revision: int) -> None:
        """The registry is said to have reached ``revision``."""
        if revision > max(self.revision, self._wanted):
            self._wanted = revision
            self._wake.set()

    def wake(self) -> None:
        """Read now: after a reconnect, or because somebody asked."""
        self._wake.set()

    def read_anew(self) -> None:
        """Read everything now, not only what is new (SIGHUP)."""
        self._read_all = True
        self._wake.set()

    def load_file(self) -> None:
        """Serves the last good table of an earlier process, until the registry answers. Never raises."""
        if self._file is None:
            return
        try:
            saved = snapshot_file.load(self._file)
        except snapshot_file.SnapshotFileError as error:
            log.warning("snapshot_file.unusable", path=str(self._file), error=str(error))
            return
        if saved is None:
            return
        self._extensions = {record.id: record for record in saved.extensions}
        self._policies = {record.id: record for record in saved.policies}
        self._named = {record.id: ids_in(record.policy) for record in saved.policies}
        compiled = compile_snapshot(saved.extensions, saved.policies, revision=saved.revision, previous=None)
        self._take(compiled)
        census = finish(counting(saved.extensions, self._named.values()))
        self._telemetry.serves(census.sizes, saved.revision)
        age = max(0.0, self._wall() - saved.saved_at)
        self._current_at = self._clock() - age
        self.from_file = True
        self._read_all = True
        log.info("snapshot_file.loaded", path=str(self._file), revision=saved.revision, age_s=round(age, 1))

    async def run(self) -> None:
        """Reads for ever; ends when cancelled, or with :class:`SchemaError` before anything could be
        served.
        """
        while True:
            self._wake.clear()
            with taking_in():
                fine = await self._reload()
            if self._clock() - self._saved_at >= SAVE_EVERY_S:
                await self.save()
            if fine and self._wanted <= self.revision:
                self._wanted = 0
            try:
                async with asyncio.timeout(self._pause()):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def _pause(self) -> float:
        pause = self._until_next_read()
        return min(pause, SAVE_EVERY_S) if self._unsaved and self._file is not None else pause

    def _until_next_read(self) -> float:
        jitter = self._draw()
        if self._failures:
            ceiling = min(MAX_BACKOFF_S, FIRST_BACKOFF_S * 2.0 ** min(self._failures - 1, 10))
            return ceiling * (0.5 + jitter / 2)
        if self._going_back.under_way:
            return LOOK_AGAIN_S
        if self._wanted > self.revision:
            # The hint was faster than a replica, or lied: ask again soon, but only this once.
            self._wanted = 0
            return FIRST_BACKOFF_S
        return self._poll_s * (1.0 - _POLL_JITTER + 2 * _POLL_JITTER * jitter)

    async def _reload(self) -> bool:
        started = self._clock()
        try:
            delta = await self._read()
        except SchemaError as error:
            # A migration still to come is waited for: a router may start while a release migrates.
            if self.snapshot is None and not isinstance(error, SchemaPendingError):
                raise
            self._failed(error)
            return False
        except (RegistryError, TimeoutError, OSError) as error:
            self._failed(error)
            return False
        except Exception as error:  # nor may a fault in reading
            if self.snapshot is None:
                raise
            log.exception("registry.not_read", revision=self.revision)
            self._failed(error)
            return False
        try:
            await self._take_in(delta, started)
        except Exception as error:  # a fault of ours in the compiler must not cost the table that serves
            log.exception("registry.not_compiled", revision=delta.revision)
            self._failed(error)
            return False
        return True

    async def _take_in(self, delta: Delta, started: float) -> None:
        if self._failures:
            log.info("registry.answers_again", failures=self._failures)
        self._failures = 0
        self.stats.load_count += 1
        if self._holds(delta):
            return
        self._current_at = self._clock()
        self.stats.last_reload = self._wall()
        self.from_file = False
        if self.snapshot is not None and not _news(delta, self.revision):
            return
        await in_turns(self._apply(delta))
        await self._swap(delta.revision, started)

    def _holds(self, delta: Delta) -> bool:
        """Whether the table serves on although the registry, which went back, says something else."""
        if self.snapshot is None or not delta.full:
            return False
        known = self._going_back.under_way
        empty = not (delta.extensions or delta.policies)
        held = self._going_back.holds(self.revision, delta.revision, empty=empty, now=self._clock())
        if held and not known:
            log.warning("registry.went_back", ours=self.revision, revision=delta.revision, empty=empty)
        return held

    async def _read(self) -> Delta:
        since = 0 if self._read_all or self._going_back.under_way else self.revision
        async with asyncio.timeout(READ_LIMIT_S):
            delta = await self._reader.read(since)
            if not delta.full and delta.revision < since:
                delta = await self._reader.read(0)
        self._read_all = False
        return delta

    def _failed(self, error: Exception) -> None:
        self._failures += 1
        self.stats.error_count += 1
        self._telemetry.reload_failed()
        level = log.warning if self._failures == 1 else log.debug
        level(
            "registry.reload_failed",
            error=f"{type(error).__name__}: {error}"[:300],
            revision=self.revision,
            serving=self.snapshot is not None,
            failures=self._failures,
        )

    def _apply(self, delta: Delta) -> Sliced[None]:
        if delta.full:
            self._extensions, self._policies, self._named = {}, {}, {}
        for stone in delta.removed:
            if stone.kind == "Extension":
                self._extensions.pop(stone.id, None)
            else:
                self._policies.pop(stone.id, None)
                self._named.pop(stone.id, None)
        for extensions in batches(delta.extensions):
            self._extensions.update((record.id, record) for record in extensions)
            yield
        for policies in batches(delta.policies):
            self._policies.update((record.id, record) for record in policies)
            self._named.update((record.id, ids_in(record.policy)) for record in policies)
            yield

    async def _swap(self, revision: int, started: float) -> None:
        # Views, not copies: a copy is young to the garbage collector, which walks all of what is young.
        extensions, policies = self._extensions.values(), self._policies.values()
        with compiling():
            compiled = await in_turns(
                compile_in_slices(extensions, policies, revision=revision, previous=self.snapshot)
            )
            census = await in_turns(counting(extensions, self._named.values()))
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        retired = await in_turns(_retired(self.snapshot))
        self._take(compiled)
        self._unsaved = True
        seconds = self._clock() - started
        if self._on_swap is not None:
            await self._on_swap()
        await asyncio.sleep(0)
        self._telemetry.reloaded(seconds, census.sizes, revision)
        self._telemetry.keep(census.ids)
        await asyncio.sleep(0)
        log.info(
            "registry.reloaded",
            count=len(extensions) + len(policies),
            revision=revision,
            ms=round(seconds * 1000, 2),
            refused=len(compiled.refused),
        )
        for refusal in compiled.refused:
            log.warning(
                "registry.refused",
                kind=refusal.kind,
                id=refusal.id,
                field=refusal.field,
                reason=refusal.reason,
            )
        await let_go(retired)

    def _take(self, compiled: Compilation) -> None:
        self.snapshot = compiled.snapshot
        self.refused = tuple(compiled.refused)
        self.notices = tuple(compiled.notices)
        self.stats.total_extensions = len(self._extensions)
        self.stats.enabled_extensions = sum(record.enabled for record in self._extensions.values())

    async def save(self) -> None:
        """Writes the file, where there is one and something new for it, or it could not be written before.
        Never raises.
        """
        snapshot, path = self.snapshot, self._file
        if path is None or snapshot is None or not (self._unsaved or self._save_fault):
            return
        self._unsaved = False
        self._saved_at = self._clock()
        extensions, policies = tuple(self._extensions.values()), tuple(self._policies.values())
        try:
            await asyncio.to_thread(snapshot_file.save, path, snapshot.revision, extensions, policies)
        except Exception as error:  # noqa: BLE001 -- of the disk, or of a record: the table serves on
            fault = f"{type(error).__name__}: {getattr(error, 'strerror', None) or error}"
            if fault != self._save_fault:
                log.warning("snapshot_file.not_saved", path=str(path), error=str(error))
            self._save_fault = fault
            return
        if self._save_fault is not None:
            self._save_fault = None
            log.info("snapshot_file.saved_again", path=str(path))


def _retired(snapshot: Snapshot | None) -> Sliced[list[object]]:
    """All that a table holds, a few things to an entry, and last, to go first, the containers that hold them:
    nothing of it goes in one piece with the table.
    """
    parts: list[object] = []
    if snapshot is None:
        return parts
    for held in (
        snapshot.matcher.drawers.items(),
        snapshot.matcher.rules,
        snapshot.compiled_policies.values(),
        snapshot.compiled_extensions.values(),
        (policy.record for policy in snapshot.compiled_policies.values()),
        (extension.record for extension in snapshot.compiled_extensions.values()),
    ):
        for batch in batches(held):
            parts.append(batch)
            yield
    parts += snapshot.containers
    return parts


def _news(delta: Delta, revision: int) -> bool:
    if delta.full:
        return True
    return delta.revision != revision or bool(delta.extensions or delta.policies or delta.removed)
