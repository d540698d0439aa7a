"""A change as people read it: one line per field that differs, with what it was and what it becomes. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from .spelling import NOTHING, as_json

MAX_LINES: Final = 100
_ABSENT: Final = object()


@dataclass(frozen=True, slots=True)
class Line:
    """One field. Values are spelt as JSON; :data:`.spelling.NOTHING` where there is none."""

    path: str
    before: str
    after: str


def lines_of(changes: Mapping[str, Any]) -> list[Line]:
    """Lines of field-wise changes (``{path: {"from": ..., "to": ...}}``). Where a list keeps its length, its
    entries are compared one by one, so that a weight in the third step is one line and not all the steps.
    """
    found = [
        line for path, change in changes.items() for line in _compared(path, change["from"], change["to"])
    ]
    return found[:MAX_LINES]


def _compared(path: str, before: Any, after: Any) -> Iterator[Line]:
    if before == after and type(before) is type(after):
        return
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for name in (*before, *(name for name in after if name not in before)):
            yield from _compared(f"{path}.{name}", before.get(name, _ABSENT), after.get(name, _ABSENT))
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, (was, is_now) in enumerate(zip(before, after, strict=True)):
            yield from _compared(f"{path}[{index}]", was, is_now)
    else:
        yield Line(path, _spelt(before), _spelt(after))


def _spelt(value: Any) -> str:
    return NOTHING if value is _ABSENT or value is None else as_json(value)
