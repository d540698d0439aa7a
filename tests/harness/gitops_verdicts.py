"""What Flux and Argo CD say of an object, and the table of states to ask them about.

Argo CD's verdict comes from the script that people install, run by a Lua runtime; Flux's from the rules of
kstatus, written down here as they are in its source (kubernetes-sigs/cli-utils, pkg/kstatus/status:
generic.go and status.go).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import lupa
import pytest

from beamline_contract.conditions import Reason

HEALTH_LUA = Path(__file__).resolve().parents[2] / "deploy" / "argocd" / "health.lua"
WORKLOAD = {"image": "x:1"}
Prepare = Callable[[Any], Awaitable[Any]]
CASES: list[Any] = []


def case(name: str, flux: str, health: str, reason: Reason | None) -> Any:
    """A state, how it is reached, and what it looks like."""
    return lambda prepare: CASES.append(pytest.param(prepare, flux, health, reason, id=name)) or prepare


def kstatus(document: dict[str, Any]) -> str:
    """checkGenericProperties, then checkReadyCondition, then "no known conditions means current"."""
    if document["metadata"].get("deletionTimestamp"):
        return "Terminating"
    status = document.get("status") or {}
    observed = status.get("observedGeneration")
    if observed is not None and observed != document["metadata"]["generation"]:
        return "InProgress"
    conditions = status.get("conditions") or []
    for condition in conditions:
        if (condition["type"], condition["status"]) == ("Reconciling", "True"):
            return "InProgress"
        if (condition["type"], condition["status"]) == ("Stalled", "True"):
            return "Failed"
    for condition in conditions:
        if condition["type"] == "Ready":
            return "Current" if condition["status"] == "True" else "InProgress"
    return "Current"


def argo(document: dict[str, Any]) -> tuple[str, str]:
    """(status, message) of the script, run as Argo CD runs it: with the object as the global ``obj``."""
    lua = lupa.LuaRuntime(unpack_returned_tuples=True)
    lua.globals().obj = _table(lua, document)
    answer = lua.execute(HEALTH_LUA.read_text())
    return str(answer["status"]), str(answer["message"])


def _table(lua: Any, value: Any) -> Any:
    if isinstance(value, dict):
        return lua.table_from({name: _table(lua, child) for name, child in value.items()})
    if isinstance(value, list):
        return lua.table_from([_table(lua, child) for child in value])
    return value


def shown(world: Any, key: Any) -> dict[str, Any]:
    """The object as the API server shows it."""
    stored = world.store.get(key)
    metadata: dict[str, Any] = {"name": key.name, "generation": stored.metadata.generation}
    if stored.metadata.deleting:
        metadata["deletionTimestamp"] = "2030-01-01T00:00:00Z"
    spec = stored.spec if isinstance(stored.spec, dict) else stored.spec.to_manifest()
    document = {"kind": key.kind, "metadata": metadata, "spec": spec}
    return {**document, "status": dict(stored.status)} if stored.status else document
