"""Canaries as they stand: which versions have one is in the registry, how far they are in their objects'
status.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from beamline_contract.names import object_id
from beamline_contract.objects import ObjectKey
from beamline_contract.projection import ExtensionRecord

from ..catalogue import View
from ..objects.port import Held, Objects, ObjectsError

MAX_CANARIES: Final = 200
_AT_A_TIME: Final = 8
_GATES: Final = (("maxErrorRate", "max_error_rate", 0.05), ("maxLatencyMs", "max_latency_ms", None))


async def canaries(view: View, objects: Objects | None) -> list[dict[str, Any]]:
    """Every canary, in order of id; at most :data:`MAX_CANARIES`."""
    records = [one for one in view.extensions.values() if one.spec.get("canary") is not None][:MAX_CANARIES]
    turns = asyncio.Semaphore(_AT_A_TIME)

    async def one(record: ExtensionRecord) -> dict[str, Any]:
        async with turns:
            return canary_of(record, await _held(record, objects))

    return list(await asyncio.gather(*(one(record) for record in records)))


def canary_of(record: ExtensionRecord, held: Held | None) -> dict[str, Any]:
    """One canary. Without its object's status nobody knows its phase."""
    spec = record.spec["canary"]
    status: Mapping[str, Any] = ((held.document.get("status") or {}) if held is not None else {}).get(
        "canary"
    ) or {}
    gates: Mapping[str, Any] = spec.get("gates") or {}
    measured = [
        {"name": name, "limit": gates.get(field, default)}
        for field, name, default in _GATES
        if gates.get(field, default) is not None
    ]
    base = record.spec.get("versionOf")
    steps = spec.get("steps") or []
    return {
        "id": record.id,
        "extension": object_id(str(base)) if base else record.id,
        "step": int(status.get("step", 0)),
        "steps": [
            {"weight": one.get("weight"), "pause_seconds": one.get("pauseSeconds", 60)} for one in steps
        ],
        "weight": int(status.get("weight", 0)),
        "phase": str(status.get("state", "Unknown")),
        "since": status.get("since"),
        "gates": [*measured, {"name": "min_samples", "limit": gates.get("minSamples", 20)}],
        "last": status.get("message"),
    }


async def _held(record: ExtensionRecord, objects: Objects | None) -> Held | None:
    if objects is None:
        return None
    try:
        return await objects.get(ObjectKey("Extension", record.namespace, record.name))
    except ObjectsError:
        return None
