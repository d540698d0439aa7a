"""Objects of a cluster, with the rights of this process alone: get, list, create, patch, delete, both kinds.

A write is a server-side apply as ``beamline-admin`` of the whole spec. Apply never removes a field that
somebody else applied, so what the new spec lacks is removed by a merge patch afterwards. The apply carries
the resourceVersion that the caller saw: an object that changed meanwhile is left alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode

from beamline_contract.model import Fault
from beamline_contract.names import ADMIN_FIELD_MANAGER, API_VERSION, CHANGED_BY, DELETED_BY, GROUP, VERSION
from beamline_contract.objects import KINDS, PLURAL, Kind, ObjectKey
from beamline_sdk.deployment.kube_api import APPLY, MERGE, KubeApi, KubeError

from .port import Author, ChangedError, Held, ObjectEvent, ObjectsError, RefusedError

_INVALID: Final = frozenset({400, 422})


class KubeObjects:
    """The objects of one API server; of ``namespaces``, or of all."""

    def __init__(self, api: KubeApi, *, namespaces: tuple[str, ...] = ()) -> None:
        self._api = api
        self._namespaces = namespaces

    async def all(self, kind: Kind | None = None) -> dict[ObjectKey, Held]:
        """See :class:`.port.Objects`."""
        found: dict[ObjectKey, Held] = {}
        root = f"/apis/{GROUP}/{VERSION}"
        scopes = [f"/namespaces/{namespace}" for namespace in self._namespaces] or [""]
        try:
            for each in KINDS if kind is None else (kind,):
                for scope in scopes:
                    async for document in self._api.items(f"{root}{scope}/{PLURAL[each]}"):
                        held = _held(each, document)
                        found[held.key] = held
        except KubeError as error:
            raise _translated(error, "the objects") from error
        return found

    async def get(self, key: ObjectKey) -> Held | None:
        """See :class:`.port.Objects`."""
        try:
            document = await self._api.find(_path(key))
        except KubeError as error:
            raise _translated(error, str(key)) from error
        return None if document is None else _held(key.kind, document)

    async def events(self, held: Held) -> list[ObjectEvent]:
        """See :class:`.port.Objects`; the API server keeps them for an hour."""
        path = f"/apis/events.k8s.io/v1/namespaces/{held.key.namespace}/events"
        selector = f"regarding.kind={held.key.kind},regarding.name={held.key.name}"
        try:
            found = [_event(each) async for each in self._api.items(path, {"fieldSelector": selector})]
        except KubeError as error:
            raise _translated(error, f"the events of {held.key}") from error
        return sorted(found, key=lambda event: event.at, reverse=True)

    async def rehearse(self, key: ObjectKey, spec: Mapping[str, Any], held: Held | None) -> None:
        """See :class:`.port.Objects`: a dry run of the API server, with its schema, rules and webhooks."""
        await self._apply(key, spec, held, {}, dry_run=True)

    async def put(self, key: ObjectKey, spec: Mapping[str, Any], held: Held | None, author: Author) -> None:
        """See :class:`.port.Objects`."""
        after = await self._apply(key, spec, held, {CHANGED_BY: author.signature})
        left = _left_over(after.get("spec") or {}, spec, held.spec if held is not None else {})
        if left:
            await self._patch(key, {"spec": left})

    async def annotate(self, held: Held, name: str, value: str, author: Author) -> None:
        """See :class:`.port.Objects`."""
        await self._patch(
            held.key, {"metadata": {"annotations": {name: value, CHANGED_BY: author.signature}}}
        )

    async def delete(self, held: Held, author: Author) -> None:
        """See :class:`.port.Objects`. It is signed first, so that the audit log hears who deleted it."""
        await self._patch(held.key, {"metadata": {"annotations": {DELETED_BY: author.signature}}})
        try:
            await self._api.delete(_path(held.key), uid=str(held.metadata.get("uid", "")) or None)
        except KubeError as error:
            raise _translated(error, str(held.key)) from error

    async def _apply(
        self,
        key: ObjectKey,
        spec: Mapping[str, Any],
        held: Held | None,
        annotations: Mapping[str, str],
        *,
        dry_run: bool = False,
    ) -> dict[str, Any]:
        metadata: dict[str, Any] = {"name": key.name, "namespace": key.namespace}
        if annotations:
            metadata["annotations"] = dict(annotations)
        if held is not None:
            metadata["resourceVersion"] = held.metadata.get("resourceVersion")
            metadata["uid"] = held.metadata.get("uid")
        document = {"apiVersion": API_VERSION, "kind": key.kind, "metadata": metadata, "spec": spec}
        params = {"fieldManager": ADMIN_FIELD_MANAGER, "force": "true", "fieldValidation": "Strict"}
        if dry_run:
            params["dryRun"] = "All"
        try:
            return await self._api.request(
                "PATCH", f"{_path(key)}?{urlencode(params)}", body=document, content_type=APPLY
            )
        except KubeError as error:
            raise _translated(error, str(key)) from error

    async def _patch(self, key: ObjectKey, body: Mapping[str, Any]) -> None:
        params = {"fieldManager": ADMIN_FIELD_MANAGER}
        try:
            await self._api.request("PATCH", _path(key), body=body, content_type=MERGE, params=params)
        except KubeError as error:
            raise _translated(error, str(key)) from error


def _held(kind: Kind, document: Mapping[str, Any]) -> Held:
    metadata = document["metadata"]
    key = ObjectKey(kind, metadata["namespace"], metadata["name"])
    return Held(key, {**document, "apiVersion": API_VERSION, "kind": kind})


def _event(document: Mapping[str, Any]) -> ObjectEvent:
    series = document.get("series") or {}
    at = (
        series.get("lastObservedTime")
        or document.get("eventTime")
        or document["metadata"]["creationTimestamp"]
    )
    return ObjectEvent(
        str(at),
        str(document.get("type", "Normal")),
        str(document.get("reason", "")),
        str(document.get("note", "")),
        int(series.get("count") or 1),
    )


def _left_over(
    after: Mapping[str, Any], wanted: Mapping[str, Any], before: Mapping[str, Any]
) -> dict[str, Any]:
    """A merge patch that removes what stood there before and was not asked for any more."""
    patch: dict[str, Any] = {}
    for name, value in after.items():
        if name not in before:
            continue
        if name not in wanted:
            patch[name] = None
        elif isinstance(value, Mapping) and isinstance(wanted[name], Mapping):
            inner = _left_over(value, wanted[name], before[name] if isinstance(before[name], Mapping) else {})
            if inner:
                patch[name] = inner
    return patch


def _translated(error: KubeError, what: str) -> ObjectsError:
    if error.status == 409:
        return ChangedError(f"{what} changed meanwhile")
    if error.status in _INVALID:
        return RefusedError((Fault("spec", f"the API server refuses it: {error}"),))
    if error.status == 403:
        return ObjectsError(f"this process may not touch {what}: its RBAC role lacks the right")
    return ObjectsError(f"{what}: the API server answered {error.status or 'nothing'}")


def _path(key: ObjectKey) -> str:
    return f"/apis/{GROUP}/{VERSION}/namespaces/{key.namespace}/{PLURAL[key.kind]}/{key.name}"
