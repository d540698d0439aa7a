"""What commands print: data as table, JSON, YAML or names; colour only where a person looks at a terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Final, TextIO

_CODES: Final = {"red": "31", "green": "32", "yellow": "33", "blue": "34", "dim": "2", "bold": "1"}


class Format(StrEnum):
    """Values of ``-o``."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


def colourful(stream: TextIO) -> bool:
    """Whether colour helps: on a terminal, unless NO_COLOR is set (https://no-color.org) or TERM is dumb."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def paint(text: str, colour: str | None, stream: TextIO | None = None) -> str:
    """``text`` in a colour of ``red green yellow blue dim bold``, or as it is."""
    if colour is None or not colourful(stream or sys.stdout):
        return text
    return f"\x1b[{_CODES[colour]}m{text}\x1b[0m"


def say(text: str = "") -> None:
    """One line on stdout."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def complain(text: str) -> None:
    """One line on stderr."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, indent: str = "") -> list[str]:
    """Lines of a table whose columns are as wide as their widest cell; the last is not padded."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    return [
        (indent + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))).rstrip()
        for row in (header, *rows)
    ]


def as_json(data: Any) -> str:
    """Indented JSON."""
    import orjson

    return orjson.dumps(data, option=orjson.OPT_INDENT_2, default=str).decode()


def as_yaml(data: Any) -> str:
    """YAML in the order of the data."""
    import yaml

    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=120).rstrip("\n")


def show_objects(objects: Sequence[Mapping[str, Any]], form: Format, rows: Sequence[str]) -> None:
    """Objects as a List in JSON or YAML, as ``kind/name``, or as the given lines of a table."""
    listed = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
    match form:
        case Format.JSON:
            say(as_json(listed))
        case Format.YAML:
            say(as_yaml(listed))
        case Format.NAME:
            for item in objects:
                say(f"{str(item['kind']).lower()}.beamline.io/{item['metadata']['name']}")
        case _:
            for row in rows:
                say(row)
