"""The object store of a laptop: YAML files of a directory, as the Kubernetes API would hold them.

**Truth.** A document of a file is what a person wants; the store turns it into an object with what an API
server would add: uid, creationTimestamp, and a generation that rises only when the spec means something else
than before. Each object is kept as one JSON document below ``state``, with its status, so that a second start
goes on where the first ended, and any program can read how things are.

**Last good.** A document that breaks a rule changes nothing: the object stays as it was, and the fault is
listed with file, line and field. So does a file that is not YAML any more: what stood in it is still there.
Only an object that was never valid is shown as broken.

**Gone.** A document that disappears takes its object with it: at once, or, while the finalizer is on it, as
an object that is being deleted until the reconcile core has cleaned up. Editors write a file by truncating or
renaming it, so a removal is believed only after a second look (:data:`SECOND_LOOK_S`).

Everything runs on one event loop; :meth:`FileStore.watch` is the only task, and calls ``on_change`` from it.
"""

from __future__ import annotations

import asyncio
import getpass
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeAlias
from uuid import uuid4

import structlog

from beamline_contract.model import Fault
from beamline_contract.names import ADMIN_FIELD_MANAGER, CHANGED_BY, FINALIZER, GROUP, NAME_PATTERN
from beamline_contract.objects import (
    KINDS,
    BeamlineObject,
    BrokenObject,
    Kind,
    ObjectKey,
    ObjectMeta,
    parse_metadata,
    parse_signature,
)

from ..core.ports import Event, StoredObject, StoreError
from .kept import Kept, KeptEvents, KeptObjects
from .manifests import Document, FileContent, FileFault, Place, manifest_files, parse, read_file

log = structlog.get_logger()

SECOND_LOOK_S: Final = 0.1
_DEBOUNCE_MS: Final = 200
_STEP_MS: Final = 25
_GLANCE_MS: Final = 500
"""How often the files are looked at without a hint: the kernel may drop events, and some file systems send
none.
"""
_SKIPPED_KINDS: Final = 100

StatusListener: TypeAlias = Callable[[ObjectKey, Mapping[str, Any]], None]
EventListener: TypeAlias = Callable[[ObjectKey, Event], None]


@dataclass(frozen=True, slots=True)
class Changes:
    """What a look at the files found. ``faults`` are all there are now, not only new ones; ``skipped`` names
    documents of other API groups, once each.
    """

    changed: tuple[ObjectKey, ...] = ()
    removed: tuple[ObjectKey, ...] = ()
    faults: tuple[FileFault, ...] = ()
    skipped: tuple[str, ...] = ()

    @property
    def keys(self) -> tuple[ObjectKey, ...]:
        """Every key to reconcile."""
        return (*self.changed, *self.removed)


@dataclass(slots=True)
class _Reading:
    """One look at all files, before it is taken in."""

    wanted: dict[ObjectKey, Document] = field(default_factory=dict)
    kept: set[ObjectKey] = field(default_factory=set)
    """Keys that stay whatever ``wanted`` says, because their file can't be read to its end."""
    faults: list[FileFault] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


class FileStore:
    """Objects from the YAML files of ``folder``; what an API server would add is kept below ``state``.

    ``on_status`` and ``on_event`` are told of every status and event written, on the event loop.
    """

    def __init__(
        self,
        folder: Path,
        state: Path,
        *,
        user: str | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        on_status: StatusListener | None = None,
        on_event: EventListener | None = None,
    ) -> None:
        self.folder = folder
        self.on_status = on_status
        self.on_event = on_event
        self.faults: tuple[FileFault, ...] = ()
        self._user = user or _user()
        self._now = now
        self._objects: dict[ObjectKey, StoredObject] = {}
        self._files: dict[ObjectKey, str] = {}
        self._kept = KeptObjects(state)
        self._events = KeptEvents(state)
        self._told: set[str] = set()
        self._contents: dict[str, tuple[tuple[int, int, int], FileContent]] = {}

    def load(self) -> Changes:
        """Takes in what was kept and what the files say now. Raises :class:`StoreError` where it can't."""
        self._kept.open()
        for kept in self._kept.load():
            self._objects[kept.object.key] = kept.object
            self._files[kept.object.key] = kept.file
        return self.look()

    def look(self) -> Changes:
        """Reads the files and takes in every difference. Raises :class:`StoreError` where the folder can't be
        read.
        """
        return self._take_in(self._read())

    async def watch(self, on_change: Callable[[Changes], None], stop: asyncio.Event | None = None) -> None:
        """Calls ``on_change`` after every edit, until ``stop`` is set or the task is cancelled."""
        from watchfiles import awatch  # noqa: PLC0415 -- a compiled watcher that only `beamline up` needs

        stop = stop or asyncio.Event()
        watching = awatch(
            self.folder, debounce=_DEBOUNCE_MS, step=_STEP_MS, stop_event=stop, recursive=True,
            watch_filter=None, rust_timeout=_GLANCE_MS, yield_on_timeout=True,
        )  # fmt: skip
        async for _ in watching:
            try:
                reading = self._read()
                if self._missing(reading):
                    await asyncio.sleep(SECOND_LOOK_S)
                    reading = self._read()
                before = self.faults
                changes = self._take_in(reading)
            except StoreError as error:
                log.warning("files.unreadable", folder=str(self.folder), error=str(error))
                self.faults = (FileFault(Place(str(self.folder), 1), "", str(error)),)
                changes, before = Changes(faults=self.faults), ()
            if changes.keys or changes.faults != before or changes.skipped:
                on_change(changes)

    def get(self, key: ObjectKey) -> StoredObject | None:
        """The object, or None where it does not exist."""
        return self._objects.get(key)

    def list(self, kind: Kind) -> Sequence[StoredObject]:
        """All objects of a kind, by namespace and name."""
        return [self._objects[key] for key in sorted(self._objects) if key.kind == kind]

    def file_of(self, key: ObjectKey) -> str | None:
        """The file that an object comes from."""
        return self._files.get(key)

    async def write_status(self, key: ObjectKey, status: Mapping[str, Any]) -> None:
        """Replaces ``status``. An object that is gone is fine. Raises :class:`StoreError`."""
        stored = self._objects.get(key)
        if stored is None:
            return
        self._put(replace(stored, status=dict(status)))
        if self.on_status is not None:
            self.on_status(key, status)

    async def set_finalizer(self, key: ObjectKey, present: bool) -> None:
        """Adds or removes our finalizer; an object that was only waiting for that is gone. Raises
        :class:`StoreError`.
        """
        stored = self._objects.get(key)
        if stored is None or (FINALIZER in stored.metadata.finalizers) == present:
            return
        if not present and stored.metadata.deleting:
            self._drop(key)
            return
        finalizers = (FINALIZER,) if present else ()
        self._put(replace(stored, metadata=replace(stored.metadata, finalizers=finalizers)))

    async def record_event(self, key: ObjectKey, event: Event) -> None:
        """Tells people: in the log, below ``state``, and to ``on_event``."""
        log.debug("object.event", object=str(key), reason=event.reason.value, message=event.message)
        if key in self._objects:
            self._events.add(key, event, self._now())
        if self.on_event is not None:
            self.on_event(key, event)

    def _read(self) -> _Reading:
        reading = _Reading()
        try:
            paths = manifest_files(self.folder)
        except OSError as error:
            raise StoreError(f"the folder {self.folder} can't be read: {error.strerror}") from error
        names = {path.relative_to(self.folder).as_posix(): path for path in paths}
        self._contents = {name: content for name, content in self._contents.items() if name in names}
        places: dict[ObjectKey, Place] = {}
        for name, path in names.items():
            content = self._content(name, path)
            reading.faults.extend(content.faults)
            if not content.complete:
                reading.kept |= {key for key, file in self._files.items() if file == name}
            for document in content.documents:
                if not document.ours:
                    kind, api = document.data.get("kind"), document.data.get("apiVersion")
                    what = f"{kind or 'a document'} of {api or 'no API'}"
                    reading.skipped.append(f"{document.place}: {what} is not of Beamline: skipped")
                    continue
                key = _key(document)
                if key is None:
                    reading.faults.extend(_faults(parse(document)))
                elif key in places:
                    message = f"{key} is defined twice, first at {places[key]}"
                    reading.faults.append(
                        FileFault(document.place_of("metadata.name"), "metadata.name", message)
                    )
                else:
                    places[key] = document.place_of("metadata.name")
                    reading.wanted[key] = document
        return reading

    def _content(self, name: str, path: Path) -> FileContent:
        """The file's documents; a file that has not been touched is not parsed again."""
        try:
            stat = path.stat()
            stamp = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        except OSError:
            stamp = (0, 0, 0)
        cached = self._contents.get(name)
        if cached is None or cached[0] != stamp or stamp == (0, 0, 0):
            cached = (stamp, read_file(path, name))
            self._contents[name] = cached
        return cached[1]

    def _missing(self, reading: _Reading) -> tuple[ObjectKey, ...]:
        present = (key for key, stored in self._objects.items() if not stored.metadata.deleting)
        return tuple(key for key in present if key not in reading.wanted and key not in reading.kept)

    def _take_in(self, reading: _Reading) -> Changes:
        changed: list[ObjectKey] = []
        faults = list(reading.faults)
        for key, document in reading.wanted.items():
            before = self._objects.get(key)
            after, found = self._next(key, before, document)
            faults.extend(found)
            self._files[key] = document.file
            if after is not None and after != before:
                self._put(after)
                changed.append(key)
        removed = self._missing(reading)
        for key in removed:
            self._remove(key)
        self.faults = tuple(sorted(set(faults), key=lambda fault: (fault.place, fault.field)))
        self._kept.write_faults(self.faults)
        news = tuple(line for line in reading.skipped if line not in self._told)[:_SKIPPED_KINDS]
        self._told.update(news)
        return Changes(tuple(changed), removed, self.faults, news)

    def _next(
        self, key: ObjectKey, before: StoredObject | None, document: Document
    ) -> tuple[StoredObject | None, tuple[FileFault, ...]]:
        """The object that a document makes of the one before, and what is wrong with the document."""
        good = None if before is None or isinstance(before, BrokenObject) else before
        stamp = self._now().isoformat(timespec="seconds").replace("+00:00", "Z")
        server_side = {
            "uid": before.metadata.uid if before else str(uuid4()),
            "creationTimestamp": before.metadata.created_at if before else stamp,
            "generation": before.metadata.generation if before else 1,
            "finalizers": list(before.metadata.finalizers) if before else [],
            "deletionTimestamp": None,
            "managedFields": [],
        }
        parsed = parse(document, old=good, overlay=server_side)
        if isinstance(parsed, tuple):
            if good is not None:
                return None, parsed
            faults = tuple(Fault(fault.field, f"{fault.message} ({fault.place})") for fault in parsed)
            meta = parse_metadata({"name": key.name, "namespace": key.namespace, **server_side})
            status = before.status if before is not None else {}
            spec = document.data.get("spec")
            return BrokenObject(
                key.kind, meta, faults, spec if isinstance(spec, Mapping) else {}, status
            ), parsed
        meta = self._signed(document, before, parsed.metadata)
        if before is not None:
            if good is not None and good.spec == parsed.spec:
                kept = good.metadata
                meta = replace(meta, changed_by=kept.changed_by, request_id=kept.request_id)
            else:
                meta = replace(meta, generation=before.metadata.generation + 1)
        status = before.status if before is not None else {}
        return replace(parsed, metadata=meta, status=status), ()

    def _signed(self, document: Document, before: StoredObject | None, meta: ObjectMeta) -> ObjectMeta:
        """With who wrote the document: the admin API where its signature is new, else who edits files."""
        signed = meta.annotations.get(CHANGED_BY, "")
        if signed and (before is None or before.metadata.annotations.get(CHANGED_BY) != signed):
            who, request_id = parse_signature(signed)
            return replace(meta, changed_by=f"{who} ({ADMIN_FIELD_MANAGER})", request_id=request_id)
        editor = f"file:{document.file} ({self._user})"
        ours = {name: editor for name in meta.annotations if name.startswith(f"{GROUP}/")}
        return replace(meta, changed_by=editor, request_id="", annotated_by=ours)

    def _put(self, stored: StoredObject) -> None:
        self._objects[stored.key] = stored
        self._kept.write(Kept(stored, self._files.get(stored.key, "")))

    def _remove(self, key: ObjectKey) -> None:
        stored = self._objects[key]
        if stored.metadata.finalizers:
            self._put(replace(stored, metadata=replace(stored.metadata, deleting=True)))
        else:
            self._drop(key)

    def _drop(self, key: ObjectKey) -> None:
        self._objects.pop(key, None)
        self._files.pop(key, None)
        self._kept.delete(key)
        self._events.delete(key)


def _key(document: Document) -> ObjectKey | None:
    """The key that a document claims, None where it has none that could exist."""
    metadata = document.data.get("metadata")
    kind = document.data.get("kind")
    if kind not in KINDS or not isinstance(metadata, Mapping):
        return None
    name, namespace = str(metadata.get("name", "")), str(metadata.get("namespace") or "default")
    if not re.fullmatch(NAME_PATTERN, name):
        return None
    return ObjectKey(kind, namespace, name)


def _faults(parsed: BeamlineObject | tuple[FileFault, ...]) -> tuple[FileFault, ...]:
    return parsed if isinstance(parsed, tuple) else ()


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"
