"""The phases of one provider's life, each bounded, and the status that each leaves.

    initialize   -> ready, or error
    start, stop  -> the status stays; a failing start is an error
    restart      -> stop, cleanup, initialize, start: ready, or error
    dispose      -> disposed, whatever happened on the way

The caller holds the entry's lock.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import structlog

from ..logs import place_of
from .bounded import within
from .records import Entry
from .settings import LifecycleSettings

log = structlog.get_logger()

Phase = Literal["initialize", "start", "stop", "restart", "dispose"]


async def pass_through(entry: Entry, phase: Phase, bounds: LifecycleSettings) -> Exception | None:
    """Brings the provider through ``phase``; what went wrong, or None. The entry's record says how it is."""
    match phase:
        case "initialize":
            return await _initialize(entry, bounds)
        case "start":
            return await _start(entry, bounds)
        case "stop":
            return await _stop(entry, bounds)
        case "restart":
            _ended(await _stop(entry, bounds), entry, "stop")
            entry.record = replace(entry.record, status="initializing")
            await _cleanup(entry, bounds)
            return await _initialize(entry, bounds) or await _start(entry, bounds)
        case "dispose":
            _ended(await _stop(entry, bounds), entry, "stop")
            if entry.record.status != "disposed":
                await _cleanup(entry, bounds)
            entry.record = replace(entry.record, status="disposed", started=False)
            return None


async def _initialize(entry: Entry, bounds: LifecycleSettings) -> Exception | None:
    entry.record = replace(entry.record, status="initializing")
    failed = await _run(entry, "initialize", bounds.init_timeout)
    if failed is not None:
        await _cleanup(entry, bounds)
    entry.record = replace(entry.record, status="ready" if failed is None else "error")
    return failed


async def _start(entry: Entry, bounds: LifecycleSettings) -> Exception | None:
    if entry.record.started:
        return None
    if entry.record.status != "ready":
        return RuntimeError(f"a provider that is {entry.record.status} can't start")
    failed = await _run(entry, "start", bounds.init_timeout)
    status = entry.record.status if failed is None else "error"
    entry.record = replace(entry.record, status=status, started=failed is None)
    return failed


async def _stop(entry: Entry, bounds: LifecycleSettings) -> Exception | None:
    if not entry.record.started:
        return None
    entry.record = replace(entry.record, started=False)
    return await _run(entry, "stop", bounds.dispose_timeout)


async def _cleanup(entry: Entry, bounds: LifecycleSettings) -> None:
    _ended(await _run(entry, "cleanup", bounds.dispose_timeout), entry, "cleanup")


async def _run(
    entry: Entry, method: Literal["initialize", "start", "stop", "cleanup"], seconds: float
) -> Exception | None:
    provider: Any = entry.record.provider
    try:
        await within(seconds, getattr(provider, method)(), f"{entry.record.name}: {method}")
    except Exception as error:  # noqa: BLE001 -- an author's code may raise anything
        return error
    return None


def _ended(failed: Exception | None, entry: Entry, what: str) -> None:
    """A failing end is a line in the log: it must not keep a provider from ending."""
    if failed is not None:
        log.warning(
            f"provider.{what}_failed",
            provider=entry.record.name,
            error=type(failed).__name__,
            at=place_of(failed),
        )
