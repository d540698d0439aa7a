"""Objects of ``beamline up``: its YAML files are the truth, its state folder says how things are.

Reading: the state folder keeps each object as the Kubernetes API would show it, with generation and status.

Writing: only the text of the one document changes; every other byte of the file stays. Inside the document
comments, order, quotes and flow style are kept by a round trip. The result is read back as ``kubectl`` would
before it replaces the file, in one rename: a file that was saved meanwhile, or is not what the state folder
says (an edit that was not taken in yet), is left alone. One write at a time; ``beamline up`` sees it like any
other edit.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from beamline_contract.model import InvalidObjectError
from beamline_contract.names import API_VERSION, CHANGED_BY, DELETED_BY
from beamline_contract.objects import KINDS, Kind, ObjectKey, parse_object

from .port import Author, ChangedError, Held, ObjectEvent, ObjectsError
from .yaml_text import Documents, TextError, as_text, read_documents

FILE_ANNOTATION: Final = "beamline.io/file"
_OURS: Final = frozenset({FILE_ANNOTATION, "beamline.io/broken"})
_TAKEN_IN_S: Final = 5.0
_LOOK_S: Final = 0.05


class FileObjects:
    """The objects of one running ``beamline up``: ``folder`` holds its manifests, ``state`` is its state."""

    def __init__(self, folder: Path, state: Path) -> None:
        self._folder = folder
        self._state = state / "objects"
        self._events = state / "events"
        self._lock = asyncio.Lock()

    async def all(self, kind: Kind | None = None) -> dict[ObjectKey, Held]:
        """See :class:`.port.Objects`."""
        try:
            paths = sorted(self._state.glob(f"{kind or '*'}.*.json"))
        except OSError as error:
            raise ObjectsError(f"the state of `beamline up` can't be read: {error.strerror}") from error
        found = (_kept(path) for path in paths)
        return {held.key: held for held in found if held is not None}

    async def get(self, key: ObjectKey) -> Held | None:
        """See :class:`.port.Objects`."""
        return _kept(self._state / f"{key.kind}.{key.namespace}.{key.name}.json")

    async def events(self, held: Held) -> list[ObjectEvent]:
        """See :class:`.port.Objects`; the last ones of each object are kept."""
        key = held.key
        path = self._events / f"{key.kind}.{key.namespace}.{key.name}.json"
        try:
            listed = json.loads(path.read_bytes())
            return [
                ObjectEvent(
                    str(one["at"]),
                    str(one["type"]),
                    str(one["reason"]),
                    str(one["message"]),
                    int(one["count"]),
                )
                for one in listed
            ]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ObjectsError(f"the events of {key} can't be read: {error}") from error

    async def rehearse(self, key: ObjectKey, spec: Mapping[str, Any], held: Held | None) -> None:
        """See :class:`.port.Objects`."""
        async with self._lock:
            if held is None:
                self._new_path(key)
                return
            documents, number, _ = self._find(held)
            _edited(documents, number, {"spec": spec})

    async def put(self, key: ObjectKey, spec: Mapping[str, Any], held: Held | None, author: Author) -> None:
        """See :class:`.port.Objects`. A new object gets a file of its own, named after it."""
        async with self._lock:
            if held is None:
                metadata: dict[str, Any] = {"name": key.name}
                if key.namespace != "default":
                    metadata["namespace"] = key.namespace
                metadata["annotations"] = {CHANGED_BY: author.signature}
                document = {"apiVersion": API_VERSION, "kind": key.kind, "metadata": metadata, "spec": spec}
                _create(self._new_path(key), as_text(document))
                return
            documents, number, path = self._find(held)
            metadata = {"annotations": {CHANGED_BY: author.signature}}
            _replace(path, documents, _edited(documents, number, {"spec": spec}, metadata))

    async def set_field(self, held: Held, name: str, value: Any) -> None:
        """Sets one field of the spec as its file states it, and nothing else; None takes it out."""
        async with self._lock:
            documents, number, path = self._find(held)
            spec = {**(documents.data[number].get("spec") or {}), name: value}
            if value is None:
                del spec[name]
            _replace(path, documents, _edited(documents, number, {"spec": spec}))

    async def annotate(self, held: Held, name: str, value: str, author: Author) -> None:
        """See :class:`.port.Objects`."""
        async with self._lock:
            documents, number, path = self._find(held)
            annotations = {name: value, CHANGED_BY: author.signature}
            _replace(path, documents, _edited(documents, number, {}, {"annotations": annotations}))

    async def delete(self, held: Held, author: Author) -> None:
        """See :class:`.port.Objects`. It is signed first, so that the audit log hears who deleted it."""
        await self.annotate(held, DELETED_BY, author.signature, author)
        deadline = asyncio.get_running_loop().time() + _TAKEN_IN_S
        while asyncio.get_running_loop().time() < deadline:
            now = await self.get(held.key)
            if now is None or (now.metadata.get("annotations") or {}).get(DELETED_BY) == author.signature:
                break
            await asyncio.sleep(_LOOK_S)
        async with self._lock:
            documents, number, path = self._find(held)
            text = documents.without(number)
            if text.strip():
                _replace(path, documents, text)
            else:
                _unlink(path, documents)

    def _find(self, held: Held) -> tuple[Documents, int, Path]:
        """The document of an object: its file's documents, its number there, and the file."""
        name = str((held.metadata.get("annotations") or {}).get(FILE_ANNOTATION, ""))
        path = self._folder / name
        if not name or not path.resolve().is_relative_to(self._folder.resolve()):
            raise ObjectsError(f"it is not known which file {held.key} comes from")
        try:
            documents = read_documents(path)
        except OSError as error:
            raise ChangedError(f"{name} can't be read any more: {error.strerror}") from error
        except TextError as error:
            raise ObjectsError(f"{name}: {error}") from error
        for number, data in enumerate(documents.data):
            if _is(data, held.key):
                if not _same_spec(data, held):
                    raise ChangedError(f"{name} holds an edit that is not taken in; correct it, or try again")
                return documents, number, path
            if (
                isinstance(data, Mapping)
                and data.get("kind") == "List"
                and any(_is(item, held.key) for item in data.get("items") or ())
            ):
                raise ObjectsError(f"{held.key} stands in a List in {name}: edit the file")
        raise ChangedError(f"{name} does not hold {held.key} any more")

    def _new_path(self, key: ObjectKey) -> Path:
        for name in (f"{key.name}.yaml", f"{key.kind.lower()}-{key.namespace}-{key.name}.yaml"):
            if not (self._folder / name).exists():
                return self._folder / name
        raise ChangedError(f"{self._folder / name} exists, but holds no {key}")


def _edited(
    documents: Documents, number: int, change: Mapping[str, Any], metadata: Mapping[str, Any] | None = None
) -> str:
    try:
        return documents.with_change(number, change, metadata or {})
    except TextError as error:
        raise ObjectsError(f"{documents.name}: {error}") from error


def _kept(path: Path) -> Held | None:
    try:
        document = json.loads(path.read_bytes())
        metadata = document["metadata"]
        return Held(ObjectKey(document["kind"], metadata["namespace"], metadata["name"]), document)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ObjectsError(f"{path.name} in the state of `beamline up` can't be read: {error}") from error


def _is(data: Any, key: ObjectKey) -> bool:
    if not isinstance(data, Mapping) or data.get("kind") not in KINDS:
        return False
    metadata = data.get("metadata")
    if not isinstance(metadata, Mapping):
        return False
    return (
        ObjectKey(data["kind"], str(metadata.get("namespace") or "default"), str(metadata.get("name"))) == key
    )


def _same_spec(data: Mapping[str, Any], held: Held) -> bool:
    try:
        return parse_object(dict(data)).spec == parse_object(held.document).spec
    except InvalidObjectError:
        return False


def _create(path: Path, text: str) -> None:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise ChangedError(f"{path.name} exists now") from error
    except OSError as error:
        raise ObjectsError(f"{path} can't be written: {error.strerror}") from error


def _replace(path: Path, documents: Documents, text: str) -> None:
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        target = path.resolve()
        aside.write_text(text, encoding="utf-8", newline="")
        aside.chmod(target.stat().st_mode & 0o777)
        if not documents.current:
            aside.unlink()
            raise ChangedError(f"{path.name} was saved meanwhile")
        aside.replace(target)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise ObjectsError(f"{path} can't be written: {error.strerror}") from error


def _unlink(path: Path, documents: Documents) -> None:
    if not documents.current:
        raise ChangedError(f"{path.name} was saved meanwhile")
    try:
        path.unlink()
    except OSError as error:
        raise ObjectsError(f"{path} can't be deleted: {error.strerror}") from error
