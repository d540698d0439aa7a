"""What the admin API needs of the place where objects live: a cluster, or the folder of ``beamline up``.

A write names the object as it was when the caller looked at it; one that changed meanwhile is left alone.
Who asked, and in which request, is signed into an annotation, because the API server and the file know only
this process.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from beamline_contract.model import Fault, InvalidObjectError
from beamline_contract.names import object_id
from beamline_contract.objects import BrokenObject, Kind, ObjectKey, parse_metadata, parse_object, signature
from beamline_contract.references import StoredObject

from .ownership import owner_of


@dataclass(frozen=True, slots=True)
class Author:
    """Who asks for a change, in which request."""

    name: str
    request_id: str

    @property
    def signature(self) -> str:
        """What the annotation says."""
        return signature(self.name, self.request_id)


@dataclass(frozen=True, slots=True)
class Held:
    """An object as it is stored. ``document`` is what the Kubernetes API would show."""

    key: ObjectKey
    document: Mapping[str, Any]

    @property
    def id(self) -> str:
        """Its id in the registry."""
        return object_id(self.key.name)

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Its metadata, as stored."""
        found: Mapping[str, Any] = self.document.get("metadata") or {}
        return found

    @property
    def spec(self) -> Mapping[str, Any]:
        """Its spec, as stored."""
        found: Mapping[str, Any] = self.document.get("spec") or {}
        return found

    @property
    def generation(self) -> int:
        """Its generation."""
        return int(self.metadata.get("generation", 1))

    @property
    def owner(self) -> str | None:
        """The GitOps tool that would undo a change; None where there is none."""
        return owner_of(self.metadata)

    def condition(self, name: str) -> Mapping[str, Any]:
        """One condition of its status; empty before there is one."""
        for condition in (self.document.get("status") or {}).get("conditions") or ():
            if condition.get("type") == name:
                return dict(condition)
        return {}

    def parsed(self) -> StoredObject:
        """As the reconcile core sees it: one that breaks its rules is kept as broken."""
        try:
            return parse_object(self.document)
        except InvalidObjectError as error:
            meta = parse_metadata(self.metadata)
            return BrokenObject(self.key.kind, meta, error.faults, self.spec)


@dataclass(frozen=True, slots=True)
class ObjectEvent:
    """Something that happened to an object. ``at`` is RFC 3339, ``type`` ``Normal`` or ``Warning``."""

    at: str
    type: str
    reason: str
    message: str
    count: int = 1


class ObjectsError(Exception):
    """The objects can't be read or written now; the message is for people."""


class ChangedError(ObjectsError):
    """The object is another than the caller thinks; nothing was written."""


class RefusedError(ObjectsError):
    """The place where objects live refuses this one: every fault with its path."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        super().__init__("; ".join(map(str, faults)))
        self.faults = faults


class Objects(Protocol):
    """Objects of one cluster or folder. Methods raise :class:`ObjectsError`, or what derives from it."""

    async def all(self, kind: Kind | None = None) -> dict[ObjectKey, Held]:
        """Every object, or every one of a kind."""
        ...

    async def get(self, key: ObjectKey) -> Held | None:
        """One object, None where there is none."""
        ...

    async def events(self, held: Held) -> list[ObjectEvent]:
        """What happened to it lately, newest first; empty where nobody keeps that."""
        ...

    async def rehearse(self, key: ObjectKey, spec: Mapping[str, Any], held: Held | None) -> None:
        """Lets the place itself check a write, and writes nothing. Raises :class:`RefusedError`."""
        ...

    async def put(self, key: ObjectKey, spec: Mapping[str, Any], held: Held | None, author: Author) -> None:
        """Makes ``spec`` the object's, or creates it where ``held`` is None."""
        ...

    async def annotate(self, held: Held, name: str, value: str, author: Author) -> None:
        """Sets one annotation."""
        ...

    async def delete(self, held: Held, author: Author) -> None:
        """Deletes the object."""
        ...
