"""Which rules might take over all that another rule matches, found without comparing each with each.

A rule takes over another one only where it asks for nothing that the other does not ask for: its tenants,
environments and models hold all of the other's, and its headers are among the other's. So each is filed under
every tenant, environment and model that it names, or under None where it names none, and under the one of its
headers that fewest share. Whoever looks needs one tenant, one environment and one model of its own, each of
its headers, and None. What lies together there asks for nearly the same, so a bounded number of each drawer
is enough, with thousands of policies too. A rule that takes less than 100 percent takes over nobody.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from heapq import merge
from itertools import islice, product
from operator import attrgetter
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .matching import Drawer, Rule

MAX_PLACES: Final = 256
"""Drawers in which one rule is filed. One that would need more is filed where everybody looks."""
MAX_RIVALS: Final = 32
"""Rules of one drawer that are looked at."""
_SOME: Final = "?"
"""Stands for the models of a rule that can't be filed under them; no model is called that."""

_Header = tuple[str, str]
_Place = tuple[str | None, str | None, str | None, _Header | None]
_by_rank = attrgetter("rank")


class Rivals:
    """Rules that take all requests that they match, filed by what they ask for. Add them in order of rank."""

    __slots__ = ("_shared", "drawers")

    def __init__(self) -> None:
        self.drawers: dict[_Place, list[Rule]] = {}
        self._shared: Counter[_Header] = Counter()

    def add(self, rule: Rule, drawers: Sequence[Drawer]) -> None:
        """Files a rule; ``drawers`` are those of its tenants and models."""
        if rule.percent < 100:
            return
        header = min(rule.headers, key=self._shared.__getitem__, default=None)
        self._shared.update(rule.headers)
        environments: Sequence[str | None] = sorted(rule.environments) or (None,)
        if len(drawers) * len(environments) > MAX_PLACES:
            environments = (None,)
        for (tenant, model), environment in product(drawers, environments):
            which = _SOME if model is None and not rule.any_model else model
            self.drawers.setdefault((tenant, which, environment, header), []).append(rule)

    def of(self, rule: Rule, models: Sequence[str]) -> Iterator[Rule]:
        """Those of a better rank that might take all that ``rule`` matches, the best first; one that lies in
        several drawers comes more than once. ``models``: the keys of drawers that hold one of its models.
        """
        tenants = dict.fromkeys((min(rule.tenants, default=None), None))
        environments = dict.fromkeys((min(rule.environments, default=None), None))
        which = (None,) if rule.any_model else (None, _SOME, *models)
        found = [
            islice(drawer, MAX_RIVALS)
            for place in product(tenants, which, environments, (None, *rule.headers))
            if (drawer := self.drawers.get(place)) is not None
        ]
        for rival in merge(*found, key=_by_rank):
            if rival.rank >= rule.rank:
                return
            yield rival
