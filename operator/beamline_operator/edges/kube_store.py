"""The object store of a cluster: a cache that watch events and lists fill, and writes to the API server.

Reads never leave the process. The cache takes in, in any order, events of a watch
(:meth:`KubeStore.observe`), a full list (:meth:`KubeStore.relist`) and the answers to our own writes; of two
versions of one object the newer stays. A deletion is remembered until the next list, so that a list that
began before it does not bring the object back. The list matters: kopf never reports a deletion that happened
while its watch was broken.

Writes: the whole ``status`` as a merge patch on the status subresource, with fields that are no longer there
set to null; the finalizer as a merge patch guarded by the resourceVersion; events to ``events.k8s.io/v1``,
where a repeat within ten minutes only counts up.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

import structlog

from beamline_contract.model import InvalidObjectError
from beamline_contract.names import API_VERSION, FIELD_MANAGER, FINALIZER, GROUP, VERSION
from beamline_contract.objects import (
    KINDS,
    PLURAL,
    BrokenObject,
    Kind,
    ObjectKey,
    parse_metadata,
    parse_object,
)
from beamline_sdk.deployment.kube_api import MERGE, KubeApi, KubeError

from ..core.ports import Event, StoredObject, StoreError

EVENT_AGGREGATION_S: Final = 600

_log = structlog.get_logger()


class KubeStore:
    """Objects of one API server, of all namespaces or of some."""

    def __init__(
        self,
        api: KubeApi,
        *,
        namespaces: Sequence[str] = (),
        identity: str = FIELD_MANAGER,
        allowed: Callable[[], bool] = lambda: True,
    ) -> None:
        self.on_change: Callable[[ObjectKey], None] = lambda key: None
        self._api = api
        self._namespaces = tuple(namespaces)
        self._identity = identity
        self._allowed = allowed
        self._objects: dict[ObjectKey, StoredObject] = {}
        self._gone: dict[ObjectKey, int] = {}
        self._conflicted: set[ObjectKey] = set()
        self._writing: dict[ObjectKey, int] = {}
        """Objects of which a write of ours is on its way, and the newest version heard of meanwhile."""

    def __len__(self) -> int:
        return len(self._objects)

    def get(self, key: ObjectKey) -> StoredObject | None:
        return self._objects.get(key)

    def list(self, kind: Kind) -> Sequence[StoredObject]:
        return [stored for key, stored in self._objects.items() if key.kind == kind]

    def observe(self, document: Mapping[str, Any], *, deleted: bool = False) -> ObjectKey:
        """Takes in one object as the API server told it, and says so to ``on_change``."""
        key, version = _key_of(document), _version(str(document["metadata"].get("resourceVersion", "")))
        known = self._objects.get(key)
        if deleted:
            self._gone[key] = version
            if known is not None and _version(known.metadata.resource_version) <= version:
                del self._objects[key]
            self.on_change(key)
            return key
        newest = _version(known.metadata.resource_version) if known is not None else self._gone.get(key, -1)
        if version > newest:  # most events are the echo of our own writes: they are not even parsed
            self._objects[key] = _parsed(document, known)
            if key in self._writing:  # our own write, or somebody else's: its answer will tell
                self._writing[key] = version
            else:
                self.on_change(key)
        return key

    async def relist(self) -> None:
        """Reads everything from the API server and corrects the cache. Raises :class:`StoreError`."""
        for kind in KINDS:
            before = {key for key in self._objects if key.kind == kind}
            listed: set[ObjectKey] = set()
            for path in self._collections(kind):
                try:
                    async for document in self._api.items(path):
                        listed.add(self.observe({"apiVersion": API_VERSION, "kind": kind, **document}))
                except KubeError as error:
                    raise StoreError(
                        f"{PLURAL[kind]}.{GROUP} can't be listed: {error}", retryable=error.retryable
                    ) from error
            for key in before - listed:
                if await self._api_lacks(key):
                    self._objects.pop(key, None)
                    self.on_change(key)
        self._gone.clear()

    async def write_status(self, key: ObjectKey, status: Mapping[str, Any]) -> None:
        current = self._objects.get(key)
        if current is None:
            return
        removed = {name: None for name in current.status if name not in status}
        await self._patch(key, {"status": {**removed, **status}}, subresource="/status")

    async def set_finalizer(self, key: ObjectKey, present: bool) -> None:
        """After a conflict the next attempt reads the object first, and leaves it at that where it is still
        the same: so a server that refuses whatever comes is asked once in a second about one object.
        """
        current = self._objects.get(key)
        if current is not None and key in self._conflicted:
            self._conflicted.discard(key)
            await self._refresh(key)
            known, current = current, self._objects.get(key)
            if current is not None and current.metadata.resource_version == known.metadata.resource_version:
                raise StoreError(
                    f"the finalizer of {key} was refused although nobody changed the object", soon=True
                )
        if current is None or (FINALIZER in current.metadata.finalizers) == present:
            return
        others = [name for name in current.metadata.finalizers if name != FINALIZER]
        metadata = {
            "finalizers": [*others, FINALIZER] if present else others,
            "resourceVersion": current.metadata.resource_version,
        }
        if not await self._patch(key, {"metadata": metadata}, conflict_is_fine=True):
            self._conflicted.add(key)
            raise StoreError(f"the finalizer of {key} waits: somebody else changed the object")

    async def record_event(self, key: ObjectKey, event: Event) -> None:
        """Same object, generation, reason and message within ten minutes is one event that counts."""
        current = self._objects.get(key)
        if current is None or not self._allowed():
            return
        now = datetime.now(UTC)
        window = int(now.timestamp()) // EVENT_AGGREGATION_S
        same = f"{current.metadata.uid} {event.reason} {event.message} {window}"
        digest = hashlib.sha256(same.encode()).hexdigest()[:16]
        path = f"/apis/events.k8s.io/v1/namespaces/{key.namespace}/events"
        name = f"{key.name}.{digest}"
        stamp = now.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        try:
            await self._api.request(
                "POST", path, body=self._event(key, current, event, name=name, stamp=stamp)
            )
        except KubeError as error:
            if error.status != 409:
                _log.debug("event.lost", object=str(key), reason=str(event.reason), error=str(error))
                return
            try:
                known = await self._api.request("GET", f"{path}/{name}")
                count = int((known.get("series") or {}).get("count", 1)) + 1
                series = {"series": {"count": count, "lastObservedTime": stamp}}
                await self._api.request("PATCH", f"{path}/{name}", body=series, content_type=MERGE)
            except KubeError as again:
                _log.debug("event.lost", object=str(key), reason=str(event.reason), error=str(again))

    def _event(
        self, key: ObjectKey, stored: StoredObject, event: Event, *, name: str, stamp: str
    ) -> dict[str, Any]:
        return {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": key.namespace},
            "eventTime": stamp,
            "reportingController": f"{GROUP}/operator",
            "reportingInstance": self._identity[:128],
            "action": "Reconcile",
            "reason": event.reason.value,
            "type": event.type,
            "note": event.message[:1024],
            "regarding": {
                "apiVersion": API_VERSION,
                "kind": key.kind,
                "namespace": key.namespace,
                "name": key.name,
                "uid": stored.metadata.uid,
                "resourceVersion": stored.metadata.resource_version,
            },
        }

    async def _patch(
        self,
        key: ObjectKey,
        body: Mapping[str, Any],
        *,
        subresource: str = "",
        conflict_is_fine: bool = False,
    ) -> bool:
        """Whether it was written; an object that is gone counts as written."""
        if not self._allowed():
            # For good or for a moment: a renewal that is under way may still succeed.
            raise StoreError("the lease is lost: this operator must not write")
        before = self._objects.get(key)
        self._writing[key] = -1
        try:
            document = await self._api.request(
                "PATCH",
                _path(key) + subresource,
                body=body,
                content_type=MERGE,
                params={"fieldManager": FIELD_MANAGER},
            )
        except KubeError as error:
            if self._writing.pop(key) >= 0:
                self.on_change(key)
            if error.status == 404:
                return True
            if error.status == 409 and conflict_is_fine:
                return False
            raise StoreError(f"{key} can't be written: {error}", retryable=error.retryable) from error
        except BaseException:
            self._writing.pop(key, None)
            raise
        heard, answer = self._writing.pop(key), _version(str(document["metadata"]["resourceVersion"]))
        self._take(document, released=body)
        if heard > answer or _seen_by_others(before) != _seen_by_others(self._objects.get(key)):
            self.on_change(key)
        return True

    def _take(self, document: Mapping[str, Any], released: Mapping[str, Any]) -> None:
        """The answer to our own write. It is no reason to look at the object again, unless it shows that
        somebody else was quicker: the event that tells of it is older than this answer, and is not heard.
        """
        known = self._objects.get(_key_of(document))
        stored = _parsed(document, known)
        if stored.metadata.deleting and not stored.metadata.finalizers and "metadata" in released:
            self._objects.pop(stored.key, None)
            return
        if known is not None and _version(stored.metadata.resource_version) > _version(
            known.metadata.resource_version
        ):
            self._objects[stored.key] = stored

    async def _refresh(self, key: ObjectKey) -> None:
        try:
            document = await self._api.find(_path(key))
        except KubeError as error:
            raise StoreError(f"{key} can't be read: {error}", retryable=error.retryable) from error
        if document is None:
            self._objects.pop(key, None)
        else:
            self._objects[key] = parse_stored(document)

    async def _api_lacks(self, key: ObjectKey) -> bool:
        try:
            return await self._api.find(_path(key)) is None
        except KubeError:
            return False

    def _collections(self, kind: Kind) -> tuple[str, ...]:
        root = f"/apis/{GROUP}/{VERSION}"
        if not self._namespaces:
            return (f"{root}/{PLURAL[kind]}",)
        return tuple(f"{root}/namespaces/{namespace}/{PLURAL[kind]}" for namespace in self._namespaces)


def parse_stored(document: Mapping[str, Any]) -> StoredObject:
    """An object of the API server; one that breaks its rules (it was stored before they were) is kept as
    broken.
    """
    try:
        return parse_object(document)
    except InvalidObjectError as error:
        metadata = parse_metadata(document.get("metadata") or {})
        spec, status = document.get("spec"), document.get("status")
        return BrokenObject(
            kind="RoutingPolicy" if document.get("kind") == "RoutingPolicy" else "Extension",
            metadata=metadata,
            faults=error.faults,
            spec=spec if isinstance(spec, Mapping) else {},
            status=status if isinstance(status, Mapping) else {},
        )


def _parsed(document: Mapping[str, Any], known: StoredObject | None) -> StoredObject:
    """The object; its spec is taken over from ``known`` where the generation says that it is the same."""
    metadata = parse_metadata(document.get("metadata") or {})
    if (
        known is not None
        and not isinstance(known, BrokenObject)
        and known.metadata.uid == metadata.uid
        and known.metadata.generation == metadata.generation
    ):
        return replace(known, metadata=metadata, status=document.get("status") or {})
    return parse_stored(document)


def _seen_by_others(stored: StoredObject | None) -> object:
    """What nobody but others changes."""
    if stored is None:
        return None
    meta = stored.metadata
    return (meta.uid, meta.generation, meta.deleting, meta.labels, meta.annotations)


def _key_of(document: Mapping[str, Any]) -> ObjectKey:
    metadata = document["metadata"]
    kind: Kind = "RoutingPolicy" if document.get("kind") == "RoutingPolicy" else "Extension"
    return ObjectKey(kind, str(metadata.get("namespace") or "default"), str(metadata["name"]))


def _path(key: ObjectKey) -> str:
    return f"/apis/{GROUP}/{VERSION}/namespaces/{key.namespace}/{PLURAL[key.kind]}/{key.name}"


def _version(text: str) -> int:
    return int(text) if text.isdigit() else 0
