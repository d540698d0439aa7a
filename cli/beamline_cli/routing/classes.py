"""Which requests go where: the classes that two tables tell apart, and what happens to each.

A request is told apart by tenant, environment, model and headers. Every value that a policy of either table
names stands for itself, and one further value for all that nobody names; a pattern stands for what it
matches. Each combination is a class, whose fate is asked of the routers' own matching code: the policies that
take it in the order of their rank, up to the first that takes all of it (``percent`` takes a part).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import permutations, product
from typing import Any, Final, TypeAlias

from beamline_router.core.matching import Matcher, Rule, mismatch
from beamline_router.core.request import Request
from beamline_router.core.route import Criteria

OTHER: Final = "any other"
ANY: Final = "any"
_MOST_ASKED: Final = 400_000
"""Classes times policies that are looked at, about a second's work."""
_OTHER_VALUE: Final = "\N{INFORMATION SEPARATOR ONE}other"

Fate: TypeAlias = tuple[tuple[str, int], ...]
"""(policy, percent) in the order in which they are asked; empty: NOT_FOUND."""
Headers: TypeAlias = tuple[tuple[str, str], ...]
_Class: TypeAlias = tuple[str, str, str, str]
_Samples: TypeAlias = Mapping[str, Any]
"""Names of values, each with one that stands for it; None where nothing is sent."""


@dataclass(frozen=True, slots=True)
class Rerouted:
    """A class of requests that another policy takes. Each part is a value, ``any``, or ``any other``."""

    tenant: str
    environment: str
    model: str
    headers: str
    before: Fate
    after: Fate


def rerouted(before: Matcher, after: Matcher) -> tuple[list[Rerouted], bool]:
    """The classes whose fate differs, as few as say it; and whether all classes were looked at."""
    rules = [*before.rules, *after.rules]
    dimensions = _dimensions(rule.policy.criteria for rule in rules)
    whole = True
    if _size(dimensions) * max(1, len(rules)) > _MOST_ASKED:
        changed = _changed(before, after)
        dimensions = _dimensions(changed)
        whole = False
        while _size(dimensions) * max(1, len(rules)) > _MOST_ASKED:
            largest = max(dimensions, key=len)
            for name in list(largest)[1::2]:
                del largest[name]  # type: ignore[attr-defined]  # each is a dict of our own
    found: dict[tuple[Fate, Fate], set[_Class]] = {}
    tenants, environments, models, headers = dimensions
    for names in product(tenants, environments, models, headers):
        request = Request(
            request_id="diff",
            tenant_id=tenants[names[0]] or _OTHER_VALUE,
            environment=environments[names[1]],
            model=models[names[2]],
            headers=dict(headers[names[3]] or ()),
            deadline=None,
            prompt="",
        )
        fates = _fate(before.rules, request), _fate(after.rules, request)
        if fates[0] != fates[1]:
            found.setdefault(fates, set()).add(names)
    return [
        Rerouted(*names, *fates)
        for fates, members in sorted(found.items())
        for names in sorted(_folded(members, dimensions))
    ], whole


def fate_text(fate: Fate) -> str:
    """``canary 5 %, else default``; ``NOT_FOUND`` where nobody takes it."""
    words = [name if percent >= 100 else f"{name} {percent} %" for name, percent in fate]
    if not fate or fate[-1][1] < 100:
        words.append("NOT_FOUND")
    return ", else ".join(words)


def _fate(rules: Sequence[Rule], request: Request) -> Fate:
    taken: list[tuple[str, int]] = []
    for rule in rules:
        if mismatch(rule, request) not in {None, "percent"} or not rule.percent:
            continue
        taken.append((rule.policy.id, rule.percent))
        if rule.percent >= 100:
            break
    return tuple(taken)


def _dimensions(criteria: Iterable[Criteria]) -> tuple[_Samples, _Samples, _Samples, _Samples]:
    """Tenants, environments, models and headers."""
    stated = list(criteria)
    tenants: dict[str, str | None] = {name: name for one in stated for name in sorted(one.tenants)}
    environments: dict[str, str | None] = {name: name for one in stated for name in sorted(one.environments)}
    patterns = list(dict.fromkeys(pattern for one in stated for pattern in one.models))
    headers = {_header_text(one.headers): one.headers for one in stated if one.headers}
    return (
        {**tenants, OTHER: None},
        {**environments, OTHER: None},
        {**dict(_models(patterns)), OTHER: None},
        {**headers, OTHER: None},
    )


def _models(patterns: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Each pattern with a model that it matches, and pairs of patterns that meet in one."""
    for pattern in patterns:
        yield pattern, pattern.replace("*", "_any").replace("?", "_")
    globs = [pattern for pattern in patterns if re.search(r"[*?]", pattern)]
    for one, other in permutations(globs, 2):
        both = f"{one.partition('*')[0]}_{other.rpartition('*')[2]}".replace("?", "_")
        if fnmatchcase(both, one) and fnmatchcase(both, other):
            yield " and ".join(sorted((one, other))), both


def _changed(before: Matcher, after: Matcher) -> list[Criteria]:
    """Criteria of policies that are not the same, in the same place, in both."""
    old = {rule.policy.id: rule.policy for rule in before.rules}
    new = {rule.policy.id: rule.policy for rule in after.rules}
    return [
        policy.criteria
        for table, others in ((old, new), (new, old))
        for name, policy in table.items()
        if name not in others
        or (policy.criteria, policy.priority) != (others[name].criteria, others[name].priority)
    ]


def _folded(members: set[_Class], dimensions: Sequence[_Samples]) -> set[_Class]:
    """The same classes in fewer rows: one for all values of a dimension, where all of them are there."""
    for place, values in enumerate(dimensions):
        rest: dict[tuple[str, ...], set[str]] = {}
        for names in members:
            rest.setdefault((*names[:place], *names[place + 1 :]), set()).add(names[place])
        folded = {
            (*others[:place], value, *others[place:])
            for others, seen in rest.items()
            for value in ((ANY,) if len(seen) == len(values) else seen)
        }
        members = {(tenant, environment, model, headers) for tenant, environment, model, headers in folded}
    return members


def _size(dimensions: Sequence[_Samples]) -> int:
    size = 1
    for values in dimensions:
        size *= len(values)
    return size


def _header_text(headers: Headers) -> str:
    return ", ".join(f"{name}: {value}" for name, value in headers)
