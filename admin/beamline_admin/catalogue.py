"""Extensions and policies as they are now, kept in memory and brought up to date before every look.

A look asks the registry for what is newer than the revision held: usually nothing, which costs one indexed
row. So an answer is never older than the request for it, and shows one revision from one consistent view, and
text search, counts and pages need no queries of their own. Memory: what a router needs for the same rows.

Looks that wait at the same time share one read. A look only accepts a read that *began* after it came,
because an earlier one may have missed a write that the caller knows of. A failed read is shared too: ten
callers in front of a frozen database wait for its time limit once, not ten times in a row.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from beamline_contract.projection import ExtensionRecord, PolicyRecord
from beamline_registry.port import Delta, RegistryError, RegistryReader

Record = TypeVar("Record", bound="HasId")


class HasId(Protocol):
    """Anything that the registry lists."""

    @property
    def id(self) -> str:
        """What it is listed under."""
        ...


@dataclass(frozen=True, slots=True)
class Page(Generic[Record]):
    """A part of a list. ``next`` is the id to continue after; None at the end."""

    items: list[Record]
    next: str | None


@dataclass(frozen=True, slots=True)
class View:
    """The registry at one revision. Both mappings are in order of id."""

    revision: int = 0
    extensions: Mapping[str, ExtensionRecord] = field(default_factory=dict)
    policies: Mapping[str, PolicyRecord] = field(default_factory=dict)

    def after(self, delta: Delta) -> View:
        """This view with ``delta`` on top."""
        if delta.revision == self.revision and not delta.full:
            return self
        gone = {(stone.kind, stone.id) for stone in delta.removed}
        kept_extensions = (
            () if delta.full else (e for e in self.extensions.values() if ("Extension", e.id) not in gone)
        )
        kept_policies = (
            () if delta.full else (p for p in self.policies.values() if ("RoutingPolicy", p.id) not in gone)
        )
        return View(
            delta.revision,
            _by_id([*kept_extensions, *delta.extensions]),
            _by_id([*kept_policies, *delta.policies]),
        )


class Catalogue:
    """Follows a registry."""

    def __init__(self, reader: RegistryReader) -> None:
        self._reader = reader
        self._lock = asyncio.Lock()
        self._began = 0
        self._ended = 0
        self._view = View()
        self._fault: RegistryError | None = None

    async def view(self) -> View:
        """The registry as it is now. Raises what :meth:`RegistryReader.read` raises."""
        mine = self._began + 1
        async with self._lock:
            if self._ended < mine:
                await self._read()
        if self._fault is not None:
            raise self._fault
        return self._view

    @property
    def last(self) -> View:
        """The registry as it was when it last answered; empty before it ever did."""
        return self._view

    async def _read(self) -> None:
        self._began += 1
        try:
            self._view = self._view.after(await self._reader.read(self._view.revision))
            self._fault = None
        except RegistryError as error:
            self._fault = error
        self._ended = self._began


def page_of(
    records: Mapping[str, Record], *, after: str, limit: int, keep: Callable[[Record], bool] = lambda _: True
) -> Page[Record]:
    """The first ``limit`` records after the id ``after`` that ``keep`` accepts. ``records`` are in order of
    id.

    The place is an id and not a number, so rows that come and go elsewhere neither repeat nor hide others.
    """
    ids = list(records)
    found: list[Record] = []
    for key in ids[bisect_right(ids, after) :]:
        if keep(records[key]):
            if len(found) == limit:
                return Page(found, found[-1].id)
            found.append(records[key])
    return Page(found, None)


def _by_id(records: Iterable[Record]) -> dict[str, Record]:
    return {record.id: record for record in sorted(records, key=lambda record: record.id)}
