"""Service levels: recording rules of how many were bad, and alerts on how fast the error budget goes.

The windows and factors are those of Google's SRE workbook, chapter 5, "multiwindow, multi-burn-rate alerts",
for 30 days: a long window says that it matters, a short one that it still goes on. docs/slo.md says what each
level means and where its figures come from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from .alerts import BAD_CODES, Alert

DAYS: Final = 30
WINDOWS: Final = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")


@dataclass(frozen=True, slots=True)
class Level:
    """A service level. ``bad`` and ``all`` are rates over a window that is written ``WINDOW``."""

    name: str
    objective: float
    bad: str
    all: str
    words: str

    @property
    def budget(self) -> float:
        """The share that may be bad."""
        return round(1.0 - self.objective, 6)

    def ratio(self, window: str) -> str:
        """The share that was bad within ``window``."""
        bad, everything = (text.replace("WINDOW", window) for text in (self.bad, self.all))
        return f"({bad}) / ({everything} > 0)"


LEVELS: Final = (
    Level(
        "availability",
        0.999,
        f"sum(rate(router_requests_total{{{BAD_CODES}}}[WINDOW])) or vector(0)",
        "sum(rate(router_requests_total[WINDOW]))",
        "requests that end in an error of ours",
    ),
    Level(
        "latency",
        0.99,
        "sum(rate(router_overhead_seconds_count[WINDOW]))"
        ' - sum(rate(router_overhead_seconds_bucket{le="0.1"}[WINDOW]))',
        "sum(rate(router_overhead_seconds_count[WINDOW]))",
        "answers that spend more than 100 ms outside of their provider",
    ),
)


@dataclass(frozen=True, slots=True)
class Burn:
    """The budget goes ``factor`` times as fast as it may."""

    factor: float
    long: str
    short: str
    wait: str
    severity: Literal["critical", "warning"]

    @property
    def gone(self) -> str:
        """What it leaves at this speed, in words."""
        return f"{DAYS / self.factor:.3g} days"


BURNS: Final = (
    Burn(14.4, "1h", "5m", "2m", "critical"),
    Burn(6, "6h", "30m", "15m", "critical"),
    Burn(3, "1d", "2h", "1h", "warning"),
    Burn(1, "3d", "6h", "3h", "warning"),
)


def record(level: Level, window: str) -> str:
    """The name of the recorded ratio."""
    return f"beamline:slo_{level.name}_bad:ratio_rate{window}"


def recordings() -> list[tuple[str, str]]:
    """(name, expression) of every recording rule."""
    return [(record(level, window), level.ratio(window)) for level in LEVELS for window in WINDOWS]


def _alert(level: Level, burns: tuple[Burn, ...], name: str) -> list[Alert]:
    return [
        Alert(
            name,
            burn.severity,
            burn.wait,
            f"{record(level, burn.long)} > {burn.factor * level.budget:.6g}"
            f" and {record(level, burn.short)} > {burn.factor * level.budget:.6g}",
            f"{{{{ $value | humanizePercentage }}}} {level.words}: the error budget of {DAYS} days is gone"
            f" after {burn.gone} of this.",
            (("slo", level.name), ("window", burn.long)),
        )
        for burn in burns
    ]


ALERTS: Final = tuple(
    alert
    for level in LEVELS
    for speed, burns in (("Fast", BURNS[:2]), ("Slow", BURNS[2:]))
    for alert in _alert(level, burns, f"Beamline{level.name.capitalize()}Burns{speed}")
)
"""Two windows each under one name: a person who is paged by either does the same."""
