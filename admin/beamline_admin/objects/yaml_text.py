"""One document of a YAML file changed, and every other byte left as it is.

The file's text is cut where documents begin. The document that changes goes through a round-trip parser,
which keeps comments, order, quotes and flow style; then the whole text is read again by the rules of
``kubectl`` (YAML 1.1), and has to say exactly what was asked for. So a text such as ``yes``, which the two
dialects understand differently, is quoted or refused, never silently changed.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import yaml
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError as RoundTripError
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

_START: Final = re.compile(r"---[^\n]*(\n|$)")
_INDENTED_LIST: Final = re.compile(r"^( *)[^\s#-][^\n]*:[ ]*\n\1[ ]+- ", re.MULTILINE)
_MAX_BYTES: Final = 4 * 1024 * 1024


class TextError(ValueError):
    """The text can't be changed safely; the message says why."""


class _Plain(yaml.SafeLoader):
    """As the reader of manifests: dates stay text."""


_Plain.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


@dataclass(frozen=True, slots=True)
class Documents:
    """A file: its text in pieces, one per document, and what each says. ``stamp`` tells when it was saved."""

    path: Path
    stamp: tuple[int, int, int]
    pieces: tuple[str, ...]
    data: tuple[Any, ...]

    @property
    def name(self) -> str:
        """The file's name, for people."""
        return self.path.name

    @property
    def current(self) -> bool:
        """Whether the file is still the one that was read."""
        try:
            return _stamp(self.path) == self.stamp
        except OSError:
            return False

    def with_change(self, number: int, change: Mapping[str, Any], metadata: Mapping[str, Any]) -> str:
        """The text with top-level values of one document replaced, and ``metadata`` merged into its own.

        Raises :class:`TextError`.
        """
        before = self.data[number]
        wanted = {**before, **change, "metadata": _merged(before.get("metadata") or {}, metadata)}
        piece = self.pieces[number]
        start = _START.match(piece)
        head, body = (start.group(0), piece[start.end() :]) if start is not None else ("", piece)
        parser = _parser(body)
        try:
            tree = parser.load(body)
            _bring(tree, before, wanted)
            written = io.StringIO()
            parser.dump(tree, written)
        except (RoundTripError, TypeError, ValueError) as error:
            raise TextError(f"can't be edited: {' '.join(str(error).split())[:200]}") from error
        pieces = [*self.pieces[:number], head + written.getvalue(), *self.pieces[number + 1 :]]
        text = "".join(pieces)
        after = _read(text)
        if len(after) != len(self.data) or any(
            found != (wanted if place == number else self.data[place]) for place, found in enumerate(after)
        ):
            raise TextError("would not read as it should (anchors, tags?); edit the file")
        return text

    def without(self, number: int) -> str:
        """The text without one document; comments before the first one go with it."""
        pieces = [*self.pieces[:number], *self.pieces[number + 1 :]]
        return "".join(pieces)


def read_documents(path: Path) -> Documents:
    """The documents of a file. Raises :class:`OSError` and :class:`TextError`."""
    stamp = _stamp(path)
    if stamp[1] > _MAX_BYTES:
        raise TextError("the file is too large")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            text = file.read()
    except UnicodeDecodeError as error:
        raise TextError("the file is not UTF-8") from error
    try:
        events: Any = yaml.parse(text, _Plain)
        starts: list[Any] = [each for each in events if isinstance(each, yaml.DocumentStartEvent)]
        places = [each.start_mark.index for each in starts]
        data = _read(text)
    except yaml.YAMLError as error:
        raise TextError("the file is not valid YAML; correct it first") from error
    cuts = [0, *places[1:], len(text)]
    pieces = tuple(text[one:other] for one, other in pairwise(cuts))
    if len(pieces) != len(data):
        raise TextError("its documents can't be told apart")
    return Documents(path, stamp, pieces, tuple(data))


def as_text(document: Mapping[str, Any]) -> str:
    """A new document."""
    parser = _parser("")
    written = io.StringIO()
    parser.dump(_quoted(document), written)
    text = written.getvalue()
    if _read(text) != [document]:
        raise TextError("has no faithful form in YAML")
    return text


def _parser(text: str) -> Any:
    parser = YAML(typ="rt")
    parser.preserve_quotes = True
    parser.width = 4096
    if _INDENTED_LIST.search(text) or not text:
        parser.indent(mapping=2, sequence=4, offset=2)
    return parser


def _read(text: str) -> list[Any]:
    return list(yaml.load_all(text, _Plain))


def _stamp(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return (found.st_mtime_ns, found.st_size, found.st_ino)


def _merged(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(one)
    for name, value in other.items():
        inner = merged.get(name)
        merged[name] = _merged(inner or {}, value) if isinstance(value, Mapping) else value
    return merged


def _bring(tree: Any, before: Any, wanted: Any) -> None:
    """Brings a parsed mapping from ``before`` to ``wanted``; what is equal keeps its text."""
    assert isinstance(tree, MutableMapping)
    for name in [name for name in before if name not in wanted]:
        del tree[name]
    for name, value in wanted.items():
        old = before.get(name)
        if name in before and _same(old, value):
            continue
        if (
            isinstance(old, Mapping)
            and isinstance(value, Mapping)
            and isinstance(tree.get(name), MutableMapping)
        ):
            _bring(tree[name], old, value)
        elif _items_match(tree.get(name), old, value):
            _bring_items(tree[name], old, value)
        else:
            tree[name] = _quoted(value)


def _items_match(tree: Any, old: Any, value: Any) -> bool:
    lists = isinstance(tree, list) and isinstance(old, list) and isinstance(value, list)
    return lists and len(old) == len(value)


def _bring_items(tree: list[Any], before: list[Any], wanted: list[Any]) -> None:
    for place, (old, value) in enumerate(zip(before, wanted, strict=True)):
        if _same(old, value):
            continue
        if (
            isinstance(old, Mapping)
            and isinstance(value, Mapping)
            and isinstance(tree[place], MutableMapping)
        ):
            _bring(tree[place], old, value)
        else:
            tree[place] = _quoted(value)


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(one == other)


def _quoted(value: Any) -> Any:
    """``value`` with every text quoted that YAML 1.1 would take for something else."""
    if isinstance(value, str):
        resolver: Any = yaml.resolver.Resolver()
        plain = resolver.resolve(yaml.ScalarNode, value, (True, False)) == "tag:yaml.org,2002:str"
        return value if plain else DoubleQuotedScalarString(value)
    if isinstance(value, Mapping):
        return {_quoted(name): _quoted(item) for name, item in value.items()}
    if isinstance(value, Sequence):
        return [_quoted(item) for item in value]
    return value
