"""YAML manifests with the line of every value, so that each fault is ``file:line: field: message``.

A file holds documents; a document is a custom resource of ours, a ``List`` of them, or something of somebody
else's, which is skipped. Values are read as ``kubectl`` reads them: YAML 1.1 booleans, no dates, keys are
strings; a key given twice is a fault, because one of its values would vanish.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from beamline_contract.model import Fault, InvalidObjectError
from beamline_contract.names import GROUP
from beamline_contract.objects import BeamlineObject, parse_object

SUFFIXES: Final = frozenset({".yaml", ".yml"})
MAX_FILE_BYTES: Final = 4 * 1024 * 1024
MAX_DEPTH: Final = 64


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A line of a file; ``file`` is relative to the folder that was read, ``line`` counts from 1."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class FileFault:
    """One thing that is wrong in a file. ``field`` is empty where none is to blame, as in broken YAML."""

    place: Place
    field: str
    message: str

    def __str__(self) -> str:
        return ": ".join(part for part in (str(self.place), self.field, self.message) if part)


@dataclass(frozen=True, slots=True)
class Document:
    """One manifest, as written. ``node`` is its YAML tree, which knows the lines."""

    data: Mapping[str, Any]
    file: str
    node: yaml.Node

    @property
    def place(self) -> Place:
        """Where it starts."""
        return Place(self.file, self.node.start_mark.line + 1)

    def place_of(self, path: str) -> Place:
        """The line of a field such as ``spec.steps[1].timeoutMs``, or of what should hold it where it is
        missing.
        """
        return Place(self.file, _line_of(self.node, path) + 1)

    def located(self, faults: Iterable[Fault]) -> tuple[FileFault, ...]:
        """Faults of the object with their lines, in the order of the file."""
        found = [FileFault(self.place_of(fault.path), fault.path, fault.message) for fault in faults]
        return tuple(sorted(found, key=lambda fault: fault.place.line))

    @property
    def ours(self) -> bool:
        """Whether it is a resource of Beamline's API group, of whatever version."""
        return str(self.data.get("apiVersion", "")).startswith(f"{GROUP}/")


@dataclass(frozen=True, slots=True)
class FileContent:
    """What a file holds. With ``complete`` false the rest of the file could not be read: nothing follows from
    what is not in ``documents``.
    """

    file: str
    documents: tuple[Document, ...] = ()
    faults: tuple[FileFault, ...] = ()
    complete: bool = True


def manifest_files(folder: Path) -> list[Path]:
    """Every YAML file below ``folder``, sorted; hidden files and folders are left out. Raises
    :class:`OSError`.
    """
    found: list[Path] = []
    pending = [folder]
    while pending:
        for entry in pending.pop().iterdir():
            if entry.name.startswith("."):
                continue
            if entry.is_dir() and not entry.is_symlink():
                pending.append(entry)
            elif entry.suffix in SUFFIXES and entry.is_file():
                found.append(entry)
    return sorted(found)


def read_file(path: Path, name: str) -> FileContent:
    """The documents of ``path``, whose faults are reported under ``name``. Never raises."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            return _unreadable(name, 1, f"the file is larger than {MAX_FILE_BYTES // 1024 // 1024} MiB")
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        return _unreadable(
            name, 1, f"the file is not UTF-8: byte {error.start} is {error.object[error.start]:#04x}"
        )
    except OSError as error:
        return _unreadable(name, 1, f"the file can't be read: {error.strerror}")
    return read_text(text, name)


def read_text(text: str, name: str) -> FileContent:
    """The documents of ``text``."""
    documents: list[Document] = []
    faults: list[FileFault] = []
    complete = True
    loader = _Loader(text)
    try:
        while loader.check_node():
            node = loader.get_node()
            if node is None or (isinstance(node, yaml.ScalarNode) and node.value in {"", "null", "~"}):
                continue
            found = tuple(_shape_faults(node, name))
            if found:
                faults.extend(found)
                complete = False
                continue
            documents.extend(_documents(node, loader.construct_document(node), name, faults))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark is not None else 1
        what = " ".join(filter(None, (error.context, error.problem)))
        faults.append(FileFault(Place(name, line), "", f"not valid YAML: {what}"))
        complete = False
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        faults.append(FileFault(Place(name, 1), "", f"not valid YAML: {' '.join(str(error).split())[:200]}"))
        complete = False
    finally:
        loader.dispose()
    return FileContent(name, tuple(documents), tuple(faults), complete)


def parse(
    document: Document, *, old: BeamlineObject | None = None, overlay: Mapping[str, Any] | None = None
) -> BeamlineObject | tuple[FileFault, ...]:
    """The document as a valid object, or every fault with its line.

    ``overlay`` stands in for ``metadata`` that only a server sets (uid, generation, ...); ``old`` is the
    version before.
    """
    data = dict(document.data)
    data.pop("status", None)
    metadata = data.get("metadata")
    if isinstance(metadata, Mapping):
        data["metadata"] = {**metadata, **(overlay or {})}
    try:
        return parse_object(data, old=old)
    except InvalidObjectError as error:
        return document.located(error.faults)
    except (TypeError, ValueError) as error:  # metadata of the wrong shape, such as labels that are a list
        return document.located([Fault("metadata", f"can't be read: {error}")])


class _Loader(yaml.SafeLoader):
    """Reads scalars as kubectl does: dates stay text, and every key becomes text."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        self.flatten_mapping(node)
        mapping: dict[Any, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key must be plain text", key.start_mark
                )
            mapping[_key_text(self.construct_object(key))] = self.construct_object(value, deep=deep)
        return mapping


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _unreadable(name: str, line: int, message: str) -> FileContent:
    return FileContent(name, faults=(FileFault(Place(name, line), "", message),), complete=False)


def _documents(node: yaml.Node, data: Any, name: str, faults: list[FileFault]) -> Iterator[Document]:
    """The manifests of one YAML document: itself, or the items of a List."""
    if not isinstance(data, dict):
        place = Place(name, node.start_mark.line + 1)
        faults.append(FileFault(place, "", f"a manifest is a mapping, this is a {type(data).__name__}"))
        return
    if data.get("kind") == "List" and isinstance(data.get("items"), list):
        items = _child(node, "items")
        assert isinstance(items, yaml.SequenceNode)
        for child, item in zip(items.value, data["items"], strict=True):
            yield from _documents(child, item, name, faults)
        return
    yield Document(data, name, node)


def _key_text(key: object) -> str:
    return str(key).lower() if isinstance(key, bool) else str(key)


def _shape_faults(root: yaml.Node, name: str) -> Iterator[FileFault]:
    """Keys given twice, nesting without end, and anchors that contain themselves."""
    pending: list[tuple[yaml.Node, str, int, frozenset[int]]] = [(root, "", 0, frozenset())]
    while pending:
        node, path, depth, above = pending.pop()
        place = Place(name, node.start_mark.line + 1)
        if id(node) in above or depth > MAX_DEPTH:
            yield FileFault(
                place, path, "contains itself" if id(node) in above else f"is nested deeper than {MAX_DEPTH}"
            )
            return
        inside = above | {id(node)}
        if isinstance(node, yaml.MappingNode):
            seen: dict[str, int] = {}
            for key, child in node.value:
                text = str(key.value) if isinstance(key, yaml.ScalarNode) else "?"
                here = f"{path}.{text}" if path else text
                if text in seen and text != "<<":
                    line = key.start_mark.line + 1
                    yield FileFault(Place(name, line), here, f"is given twice, first in line {seen[text]}")
                seen[text] = key.start_mark.line + 1
                pending.append((child, here, depth + 1, inside))
        elif isinstance(node, yaml.SequenceNode):
            pending.extend(
                (child, f"{path}[{number}]", depth + 1, inside) for number, child in enumerate(node.value)
            )


def _line_of(node: yaml.Node, path: str) -> int:
    """The line, from 0, of the deepest part of ``path`` that exists."""
    line = node.start_mark.line
    while path:
        if path.startswith("["):
            index, _, path = path[1:].partition("]")
            if (
                not isinstance(node, yaml.SequenceNode)
                or not index.isdigit()
                or int(index) >= len(node.value)
            ):
                break
            node = node.value[int(index)]
            line = node.start_mark.line
        else:
            path = path.removeprefix(".")
            key = _longest_key(node, path)
            if key is None:
                break
            line, path = key.start_mark.line, path[len(str(key.value)) :]
            child = _child(node, str(key.value))
            assert child is not None
            node = child
    return int(line)


def _longest_key(node: yaml.Node, path: str) -> yaml.ScalarNode | None:
    """The key that ``path`` starts with; the longest, because a key of ``config`` may itself hold dots."""
    if not isinstance(node, yaml.MappingNode):
        return None
    keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
    fitting = [
        key for key in keys if path == key.value or path.startswith((f"{key.value}.", f"{key.value}["))
    ]
    return max(fitting, key=lambda key: len(key.value), default=None)


def _child(node: yaml.Node, key: str) -> yaml.Node | None:
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            if isinstance(name, yaml.ScalarNode) and name.value == key:
                return value  # type: ignore[no-any-return]  # PyYAML's stubs leave it open
    return None
