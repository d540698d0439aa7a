"""The fake of :class:`.port.Objects`: objects in memory, taken in at once by nobody."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from beamline_contract.names import API_VERSION, CHANGED_BY
from beamline_contract.objects import Kind, ObjectKey

from .port import Author, ChangedError, Held, ObjectEvent


class MemoryObjects:
    """Objects that a test states. ``programmed`` True: every write is served by one router at once."""

    def __init__(self, documents: Iterable[Mapping[str, Any]] = (), *, programmed: bool = False) -> None:
        self._programmed = programmed
        self._held: dict[ObjectKey, Held] = {}
        for document in documents:
            metadata = {"namespace": "default", "generation": 1, "uid": "uid", **document["metadata"]}
            key = ObjectKey(document["kind"], metadata["namespace"], metadata["name"])
            self._held[key] = Held(key, {**document, "apiVersion": API_VERSION, "metadata": metadata})

    async def all(self, kind: Kind | None = None) -> dict[ObjectKey, Held]:
        """See :class:`.port.Objects`."""
        return {key: held for key, held in self._held.items() if kind in {None, key.kind}}

    async def get(self, key: ObjectKey) -> Held | None:
        """See :class:`.port.Objects`."""
        return self._held.get(key)

    async def events(self, held: Held) -> list[ObjectEvent]:
        """See :class:`.port.Objects`: nobody keeps them here."""
        return []

    async def rehearse(self, key: ObjectKey, spec: Mapping[str, Any], held: Held | None) -> None:
        """See :class:`.port.Objects`."""
        self._unchanged(key, held)

    async def put(self, key: ObjectKey, spec: Mapping[str, Any], held: Held | None, author: Author) -> None:
        """See :class:`.port.Objects`."""
        self._unchanged(key, held)
        generation = 1 if held is None else held.generation + 1
        before = {} if held is None else held.metadata
        annotations = {**(before.get("annotations") or {}), CHANGED_BY: author.signature}
        metadata = {**before, "name": key.name, "namespace": key.namespace, "generation": generation}
        document: dict[str, Any] = {
            "apiVersion": API_VERSION,
            "kind": key.kind,
            "metadata": {**metadata, "annotations": annotations},
            "spec": dict(spec),
        }
        if self._programmed:
            true = {"status": "True", "observedGeneration": generation}
            document["status"] = {
                "programmed": "1/1",
                "conditions": [{"type": name, **true} for name in ("Accepted", "Programmed")],
            }
        self._held[key] = Held(key, document)

    async def annotate(self, held: Held, name: str, value: str, author: Author) -> None:
        """See :class:`.port.Objects`."""
        annotations = {**(held.metadata.get("annotations") or {}), name: value}
        metadata = {**held.metadata, "annotations": annotations}
        self._held[held.key] = replace(held, document={**held.document, "metadata": metadata})

    async def delete(self, held: Held, author: Author) -> None:
        """See :class:`.port.Objects`."""
        self._unchanged(held.key, held)
        del self._held[held.key]

    def _unchanged(self, key: ObjectKey, held: Held | None) -> None:
        if self._held.get(key) != held:
            raise ChangedError(f"{key} changed meanwhile")
