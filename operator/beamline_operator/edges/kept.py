"""What a laptop keeps of its objects between two starts: one JSON document each, as ``kubectl get -o json``
prints it.

Below the state folder: ``objects/KIND.NAMESPACE.NAME.json``, what happened to each in
``events/KIND.NAMESPACE.NAME.json``, and ``faults.json``. Each file is written aside and renamed, so a reader
never sees half of one. A document that this version can't read any more is left out, with a warning: the file
it came from is read anyway.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import orjson
import structlog

from beamline_contract.model import InvalidObjectError
from beamline_contract.names import API_VERSION
from beamline_contract.objects import BrokenObject, ObjectKey, parse_object

from ..core.ports import Event, StoredObject, StoreError
from .manifests import FileFault

log = structlog.get_logger()

MAX_EVENTS: Final = 50
"""Kept of one object, the newest."""
SAME_EVENT_S: Final = 600.0
"""The same event within this time counts up the one that is there, as in a cluster."""
_FILE_ANNOTATION: Final = "beamline.io/file"
_BROKEN_ANNOTATION: Final = "beamline.io/broken"


@dataclass(frozen=True, slots=True)
class Kept:
    """An object and the file that it comes from."""

    object: StoredObject
    file: str


class KeptObjects:
    """The state folder. Every method that writes raises :class:`StoreError` where the disk refuses."""

    def __init__(self, state: Path) -> None:
        self._objects = state / "objects"
        self._faults = state / "faults.json"

    def open(self) -> None:
        """Makes the folder."""
        try:
            self._objects.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"the folder {self._objects} can't be made: {error.strerror}", retryable=False
            ) from error

    def load(self) -> Iterator[Kept]:
        """Everything that was kept and is still understood."""
        for path in sorted(self._objects.glob("*.json")):
            try:
                document = orjson.loads(path.read_bytes())
                metadata = document["metadata"]
                annotations = metadata.get("annotations", {})
                file = annotations.pop(_FILE_ANNOTATION, "")
                if _BROKEN_ANNOTATION in annotations:
                    path.unlink()
                else:
                    yield Kept(parse_object(document), file)
            except (
                OSError,
                KeyError,
                TypeError,
                AttributeError,
                orjson.JSONDecodeError,
                InvalidObjectError,
            ) as error:
                log.warning("files.kept_unreadable", path=str(path), error=str(error))

    def write(self, kept: Kept) -> None:
        """Keeps an object; one that was never valid only for readers, not for the next start."""
        document = manifest(kept.object)
        annotations = document["metadata"].setdefault("annotations", {})
        annotations[_FILE_ANNOTATION] = kept.file
        if isinstance(kept.object, BrokenObject):
            annotations[_BROKEN_ANNOTATION] = "true"
        _replace(self._path(kept.object.key), document)

    def delete(self, key: ObjectKey) -> None:
        """Forgets an object."""
        self._path(key).unlink(missing_ok=True)

    def write_faults(self, faults: Sequence[FileFault]) -> None:
        """Keeps what is wrong with the files now."""
        listed = [
            {
                "file": fault.place.file,
                "line": fault.place.line,
                "field": fault.field,
                "message": fault.message,
            }
            for fault in faults
        ]
        _replace(self._faults, listed)

    def _path(self, key: ObjectKey) -> Path:
        return self._objects / f"{key.kind}.{key.namespace}.{key.name}.json"


class KeptEvents:
    """What happened to each object, newest first, bounded by :data:`MAX_EVENTS`. Nothing here raises: an
    event that is lost is no harm.
    """

    def __init__(self, state: Path) -> None:
        self._folder = state / "events"

    def add(self, key: ObjectKey, event: Event, at: datetime) -> None:
        """Writes one down; the same one of a moment ago counts up."""
        path = self._path(key)
        known = _listed(path)
        told = {"type": event.type, "reason": event.reason.value, "message": event.message}
        count = 1
        for position, one in enumerate(known):
            if {name: one.get(name) for name in told} == told and _age_s(one, at) < SAME_EVENT_S:
                count += int(known.pop(position).get("count", 1))
                break
        stamp = at.isoformat(timespec="microseconds").replace("+00:00", "Z")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            _replace(path, [{"at": stamp, **told, "count": count}, *known][:MAX_EVENTS])
        except (OSError, StoreError) as error:
            log.debug("event.lost", object=str(key), reason=event.reason.value, error=str(error))

    def delete(self, key: ObjectKey) -> None:
        """Forgets those of an object that is gone."""
        self._path(key).unlink(missing_ok=True)

    def _path(self, key: ObjectKey) -> Path:
        return self._folder / f"{key.kind}.{key.namespace}.{key.name}.json"


def _listed(path: Path) -> list[dict[str, Any]]:
    try:
        found = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return []
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _age_s(event: dict[str, Any], now: datetime) -> float:
    try:
        return (now - datetime.fromisoformat(str(event.get("at")))).total_seconds()
    except (ValueError, TypeError):
        return float("inf")


def manifest(stored: StoredObject) -> dict[str, Any]:
    """The object as the Kubernetes API would show it."""
    meta = stored.metadata
    metadata: dict[str, Any] = {
        "name": meta.name,
        "namespace": meta.namespace,
        "uid": meta.uid,
        "generation": meta.generation,
        "creationTimestamp": meta.created_at,
    }
    optional: dict[str, Any] = {
        "finalizers": list(meta.finalizers),
        "labels": dict(meta.labels),
        "annotations": dict(meta.annotations),
        "deletionTimestamp": meta.created_at if meta.deleting else None,
        "managedFields": [{"manager": meta.changed_by}] if meta.changed_by else None,
    }
    metadata.update((name, value) for name, value in optional.items() if value)
    spec = dict(stored.spec) if isinstance(stored, BrokenObject) else stored.spec.to_manifest()
    return {
        "apiVersion": API_VERSION,
        "kind": stored.kind,
        "metadata": metadata,
        "spec": spec,
        "status": dict(stored.status),
    }


def _replace(path: Path, document: Any) -> None:
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        aside.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2))
        aside.replace(path)
    except (OSError, TypeError) as error:
        raise StoreError(f"{path} can't be written: {error}") from error
