"""Small charts as geometry: what ``templates/charts.html`` puts into SVG. Pure.

The horizontal axis is time, oldest first; the vertical one starts at zero and ends at a round number, so that
two looks at quiet traffic look the same. Points are means of neighbouring samples: no more than can be seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NamedTuple

WIDTH: Final = 600
HEIGHT: Final = 96
MAX_POINTS: Final = 90
DASH: Final = 8.0
"""How long a value without neighbours is drawn."""


@dataclass(frozen=True, slots=True)
class Series:
    """One line. ``area`` is the same line closed at the bottom; both are SVG path data."""

    name: str
    look: str
    line: str
    area: str
    last: float | None
    highest: float | None


@dataclass(frozen=True, slots=True)
class Chart:
    """``top`` is the value at the upper edge."""

    series: tuple[Series, ...]
    top: float
    empty: bool

    @property
    def middle(self) -> float:
        """The value half way up."""
        return self.top / 2


def chart(*lines: tuple[str, str, Sequence[float | None]]) -> Chart:
    """A chart of lines: (name, look, values). All have the same number of values; None is a gap."""
    thin = [(name, look, _thinned(values)) for name, look, values in lines]
    known = [value for _, _, values in thin for value in values if value is not None]
    top = nice(max(known, default=0.0))
    return Chart(
        tuple(_series(name, look, values, top) for name, look, values in thin),
        top,
        not known,
    )


class Moment(NamedTuple):
    """What the three charts of traffic show of one interval: calls and errors per second, milliseconds."""

    requests: float
    errors: float
    p50_ms: float | None
    p99_ms: float | None


def traffic_charts(moments: Sequence[Moment], points: int) -> dict[str, Chart]:
    """Requests, errors and latency, by the names that ``templates/charts.html`` knows. ``points`` fill the
    axis; what was before the first moment is left empty.
    """
    unknown = [None] * max(0, points - len(moments))

    def values(read: Callable[[Moment], float | None]) -> list[float | None]:
        return [*unknown, *map(read, moments)]

    return {
        "rate": chart(("requests per second", "plain", values(lambda one: one.requests))),
        "errors": chart(("errors per second", "bad", values(lambda one: one.errors))),
        "latency": chart(
            ("p99", "plain", values(lambda one: one.p99_ms)),
            ("p50", "soft", values(lambda one: one.p50_ms)),
        ),
    }


def nice(value: float) -> float:
    """The least of 1, 2, 2.5, 5 and 10 times a power of ten that is not below ``value``; at least 1."""
    if value <= 1.0:
        return 1.0
    power: float = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1.0, 2.0, 2.5, 5.0, 10.0) if step * power >= value)


def _thinned(values: Sequence[float | None]) -> list[float | None]:
    size = max(1, math.ceil(len(values) / MAX_POINTS))
    found: list[float | None] = []
    for start in range(0, len(values), size):
        known = [value for value in values[start : start + size] if value is not None]
        found.append(sum(known) / len(known) if known else None)
    return found


def _series(name: str, look: str, values: Sequence[float | None], top: float) -> Series:
    step = WIDTH / max(1, len(values) - 1)
    places = [
        None if value is None else (round(index * step, 1), round(HEIGHT * (1 - min(value / top, 1.0)), 1))
        for index, value in enumerate(values)
    ]
    known = [value for value in values if value is not None]
    lines, areas = [], []
    for run in _runs(places):
        points = " ".join(f"{x:g},{y:g}" for x, y in run)
        lines.append(f"M{points}")
        areas.append(f"M{run[0][0]:g},{HEIGHT} L{points} L{run[-1][0]:g},{HEIGHT}Z")
    last = known[-1] if known else None
    return Series(name, look, " ".join(lines), " ".join(areas), last, max(known, default=None))


def _runs(places: Sequence[tuple[float, float] | None]) -> list[list[tuple[float, float]]]:
    """Neighbours without a gap; a lonely point becomes a short dash, or nobody would see it."""
    found: list[list[tuple[float, float]]] = [[]]
    for before, here in pairwise((None, *places)):
        if here is not None:
            found[-1].append(here)
        elif before is not None:
            found.append([])
    return [run if len(run) > 1 else _dash(*run[0]) for run in found if run]


def _dash(x: float, y: float) -> list[tuple[float, float]]:
    start = min(x, WIDTH - DASH)
    return [(start, y), (start + DASH, y)]
