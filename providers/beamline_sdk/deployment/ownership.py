"""Has anybody changed what we applied? Asked of the API server's own books, not by comparing values.

With server-side apply the API server writes down which field manager owns which field (``managedFields``).
Whoever else changes one of our fields takes it over, and a field that is deleted leaves the books. So what we
applied stands as long as our entry still covers every field of our manifest. Values need not be compared,
which would mean to know every default and every spelling of a quantity; and it works for a change that was
made while nobody watched, because the books are part of the object.

What others *add* is theirs and stays.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from beamline_contract.names import GROUP

RETAINED_ANNOTATION: Final = f"{GROUP}/retained"
"""On what no Extension owns, on purpose: it outlives its Extension, or it never had one."""
_NOT_OWNED: Final = frozenset({"apiVersion", "kind"})
_IDENTITY: Final = frozenset({"name", "namespace"})


def fields_of(live: Mapping[str, Any], manager: str) -> Mapping[str, Any]:
    """The fields that ``manager`` holds by apply, in the API server's notation; empty where it holds none."""
    for entry in live["metadata"].get("managedFields") or ():
        if _is_applied_by(entry, manager):
            fields: Mapping[str, Any] = entry.get("fieldsV1") or {}
            return fields
    return {}


def stands(manifest: Mapping[str, Any], live: Mapping[str, Any], manager: str) -> bool:
    """Whether ``manager`` still holds every field of ``manifest`` in ``live``."""
    wanted: dict[str, Any] = {name: value for name, value in manifest.items() if name not in _NOT_OWNED}
    wanted["metadata"] = {
        name: value for name, value in manifest["metadata"].items() if name not in _IDENTITY
    }
    return _covers(fields_of(live, manager), wanted)


def taken_over(live: Mapping[str, Any], manager: str) -> list[dict[str, Any]] | None:
    """The books with everything in ``manager``'s hands that it shares with others; None where it does anyway.

    What it then no longer applies goes. That is the way out where somebody put something beside what we
    apply that excludes it, such as another source for a variable: the API server refuses both together.
    What belongs to a subresource (status, the scale that an autoscaler writes) stays with whoever wrote it.
    """
    books = [dict(entry) for entry in live["metadata"].get("managedFields") or ()]
    own = next((entry for entry in books if _is_applied_by(entry, manager)), None)
    others = [entry for entry in books if entry is not own and not entry.get("subresource")]
    if own is None or not others:
        return None
    fields: Mapping[str, Any] = own.get("fieldsV1") or {}
    for entry in others:
        fields = _united(fields, {"f:spec": (entry.get("fieldsV1") or {}).get("f:spec") or {}})
    own["fieldsV1"] = fields
    return [entry for entry in books if entry not in others]


def _united(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    whole = dict(one)
    for name, child in other.items():
        whole[name] = _united(whole.get(name) or {}, child)
    return whole


def _is_applied_by(entry: Mapping[str, Any], manager: str) -> bool:
    found = (entry.get("manager"), entry.get("operation"), entry.get("subresource") or "")
    return found == (manager, "Apply", "")


def is_ours(live: Mapping[str, Any], owner_uid: str, manager: str) -> bool:
    """Owned by this very Extension, or applied by ``manager`` and owned by nobody (any more). Without
    ``owner_uid`` any Extension's. A label proves nothing: people copy manifests with their labels.
    """
    owners = live["metadata"].get("ownerReferences") or []
    if owners:
        return any(
            _is_extension(owner) and (not owner_uid or owner.get("uid") == owner_uid) for owner in owners
        )
    return bool(fields_of(live, manager))


def is_made_by(live: Mapping[str, Any], manager: str) -> bool:
    """Whether ``manager`` applied it for some Extension, whoever of them owns it now."""
    return not foreign_owner(live) and (has_extension(live) or bool(fields_of(live, manager)))


def has_extension(live: Mapping[str, Any]) -> bool:
    """Whether some Extension owns it."""
    return any(_is_extension(owner) for owner in live["metadata"].get("ownerReferences") or ())


def foreign_owner(live: Mapping[str, Any]) -> str | None:
    """Kind and name of an owner where no Extension is among them; None without one."""
    owners = live["metadata"].get("ownerReferences") or []
    if not owners or has_extension(live):
        return None
    return f"{owners[0].get('kind')} {owners[0].get('name')}"


def is_retained(live: Mapping[str, Any]) -> bool:
    """Whether it was left without an owner on purpose."""
    return (live["metadata"].get("annotations") or {}).get(RETAINED_ANNOTATION) == "true"


def leaving(live: Mapping[str, Any]) -> dict[str, Any]:
    """The merge patch that takes an Extension off its owners, on purpose, and changes nothing else."""
    meta = live["metadata"]
    others = [owner for owner in meta.get("ownerReferences") or () if not _is_extension(owner)]
    return {
        "metadata": {
            "resourceVersion": meta["resourceVersion"],
            "ownerReferences": others or None,
            "annotations": {RETAINED_ANNOTATION: "true"},
        }
    }


def _is_extension(owner: Mapping[str, Any]) -> bool:
    return owner.get("kind") == "Extension" and str(owner.get("apiVersion", "")).startswith(f"{GROUP}/")


def shortened(live: Mapping[str, Any], manager: str) -> dict[str, Any]:
    """What is worth keeping in memory of an object that is only watched for changes."""
    meta = live["metadata"]
    kept = {
        name: meta[name]
        for name in ("name", "namespace", "uid", "resourceVersion", "labels", "ownerReferences")
        if name in meta
    }
    if is_retained(live):
        kept["annotations"] = {RETAINED_ANNOTATION: "true"}
    kept["managedFields"] = [{"manager": manager, "operation": "Apply", "fieldsV1": fields_of(live, manager)}]
    return {"metadata": kept}


def _covers(fields: Mapping[str, Any], wanted: Any) -> bool:
    """An empty node is a leaf, or something that is owned as a whole."""
    if isinstance(wanted, Mapping):
        return all(
            f"f:{name}" in fields and (not fields[f"f:{name}"] or _covers(fields[f"f:{name}"], value))
            for name, value in wanted.items()
        )
    if isinstance(wanted, list):
        return all(_covers_item(fields, item) for item in wanted)
    return True


def _covers_item(fields: Mapping[str, Any], item: Any) -> bool:
    """An item of a list that merges: by its keys (``k:``), or by its value (``v:``)."""
    if not isinstance(item, Mapping):
        return f"v:{json.dumps(item, separators=(',', ':'))}" in fields
    return any(not child or _covers(child, item) for key, child in _keyed(fields) if _picks(key, item))


def _keyed(fields: Mapping[str, Any]) -> Iterable[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    for name, child in fields.items():
        if name.startswith("k:"):
            yield json.loads(name[2:]), child


def _picks(key: Mapping[str, Any], item: Mapping[str, Any]) -> bool:
    """Keys that the manifest leaves to their default (a port's protocol) pick by the others."""
    return all(name not in item or item[name] == value for name, value in key.items())
