"""Calls of a canary's step, counted from routers' health reports.

One sum per extension since the process started, and where it stood when a step was first asked about: enough
for "since the step began", whatever the number of calls. Where a step is decided upon, the one that ends and
the one that begins are both asked about, more than once; so the last few stay known. A process that takes
over counts the present step from zero.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from beamline_contract.reports import RouterHealth

from .canary import Samples

KEPT_MARKS: Final = 4


@dataclass(slots=True)
class _Sum:
    calls: int = 0
    failures: int = 0
    latency_ms: float = 0.0


class SampleBoard:
    """Sums by extension id."""

    def __init__(self) -> None:
        self._sums: dict[str, _Sum] = {}
        self._marks: dict[str, dict[str, _Sum]] = {}

    def take(self, report: RouterHealth) -> None:
        """Takes in a report."""
        for delta in report.deltas:
            one = self._sums.setdefault(delta.extension_id, _Sum())
            one.calls += delta.success + delta.failure
            one.failures += delta.failure
            one.latency_ms += delta.latency_ms_sum

    def since(self, identifier: str, mark: str) -> Samples:
        """The calls since ``mark`` was first asked for; a mark that is new begins at zero."""
        now = self._sums.get(identifier) or _Sum()
        marks = self._marks.setdefault(identifier, {})
        base = marks.pop(mark, None) or replace(now)
        marks[mark] = base  # the last that was asked about is the last
        if len(marks) > KEPT_MARKS:
            del marks[next(iter(marks))]
        return Samples(now.calls - base.calls, now.failures - base.failures, now.latency_ms - base.latency_ms)

    def keep(self, identifiers: set[str]) -> None:
        """Forgets every extension that is not named."""
        for gone in (self._sums.keys() | self._marks.keys()) - identifiers:
            self._sums.pop(gone, None)
            self._marks.pop(gone, None)
