"""Which policy takes a request.

Every criterion that a policy states must hold; within a list one entry is enough; an absent criterion matches
anything, and a request that does not carry what is asked for (no model, no such header) does not match. Of
several the winner has

1. the highest priority, then
2. the most specific match, compared in this order: names tenants; models (exact before glob, the longer
literal part first); the number of headers; names environments; takes less than 100 percent; then
3. the oldest creation time, then
4. the first name.

All of that but the request is known beforehand, so each policy has a rank, and a policy is filed under each
tenant and each model it names; a glob that ends in its only ``*`` is filed under its prefix. A request looks
into four drawers, and two more per length that a prefix has, each sorted by rank: with thousands of tenants
and models the cost of a match is that of one. ``percent`` is decided by a hash of the policy's id
and a key of the request: its sticky key (tenant or header) where the policy states one, else the request id.
The same key always falls on the same side.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import translate
from heapq import merge
from typing import TypeVar

from .keys import key_of, within
from .request import Request
from .rivals import MAX_PLACES, Rivals
from .route import CompiledPolicy, Criteria
from .slices import AT_A_TIME, Sliced, batches, finish

T = TypeVar("T")
Drawer = tuple[str | None, str | None]
_Order = tuple[int, tuple[int, ...], str, str]
_BATCHES_PER_RUN = 8
_EXACT = 1_000
WILDCARDS = re.compile(r"[*?]")


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """A policy's match, ready to be asked. ``rank`` 0 is asked first."""

    policy: CompiledPolicy
    rank: int
    tenants: frozenset[str]
    environments: frozenset[str]
    exact_models: frozenset[str]
    model_prefixes: tuple[str, ...]
    model_patterns: tuple[Callable[[str], object], ...]
    any_model: bool
    headers: tuple[tuple[str, str], ...]
    percent: int


class Matcher:
    """All policies of a snapshot, filed for matching."""

    __slots__ = ("_rivals", "drawers", "prefix_lengths", "rules")

    def __init__(self, policies: Iterable[CompiledPolicy] = ()) -> None:
        self.rules: tuple[Rule, ...] = ()
        self.drawers: dict[Drawer, list[Rule]] = {}
        self.prefix_lengths: tuple[int, ...] = ()
        self._rivals = Rivals()
        finish(self._file(policies))

    @classmethod
    def building(cls, policies: Iterable[CompiledPolicy]) -> Sliced[Matcher]:
        """Makes a matcher in pieces."""
        made = cls()
        yield from made._file(policies)
        return made

    def _file(self, policies: Iterable[CompiledPolicy]) -> Sliced[None]:
        runs: list[list[tuple[_Order, int, CompiledPolicy]]] = []
        for number, batch in enumerate(batches(policies)):
            if number % _BATCHES_PER_RUN == 0:
                runs.append([])
            before = number * AT_A_TIME
            runs[-1] += [(_order(policy), before + at, policy) for at, policy in enumerate(batch)]
            yield
        for run in runs:
            run.sort(reverse=True)
            yield
        rules: list[Rule] = []
        lengths: set[int] = set()
        for ranked in batches(merge(*map(_emptying, runs))):
            for _, _, policy in ranked:
                rule = _rule(policy, len(rules))
                rules.append(rule)
                drawers = _drawers_of(rule)
                for drawer in drawers:
                    self.drawers.setdefault(drawer, []).append(rule)
                self._rivals.add(rule, drawers)
                if _by_prefix(rule):
                    lengths.update(map(len, rule.model_prefixes))
            yield
        self.rules = tuple(rules)
        self.prefix_lengths = tuple(sorted(lengths))

    def find(self, request: Request) -> CompiledPolicy | None:
        """The policy that takes the request, or None."""
        best: Rule | None = None
        get = self.drawers.get
        tenant, model = request.tenant_id, request.model
        found = [get((tenant, model)), get((tenant, None)), get((None, model)), get((None, None))]
        if self.prefix_lengths and model is not None:
            for length in self.prefix_lengths:
                prefix = model[:length] + "*"
                found += (get((tenant, prefix)), get((None, prefix)))
        for rules in found:
            if rules is None:
                continue
            for rule in rules:
                if best is not None and rule.rank >= best.rank:
                    break
                if mismatch(rule, request) is None:
                    best = rule
                    break
        return None if best is None else best.policy

    def rivals(self, rule: Rule) -> Iterable[Rule]:
        """Rules of a better rank that might take all that ``rule`` would match, the best first."""
        models = [] if not rule.exact_models else [min(rule.exact_models)]
        first = min(map(head, rule.policy.criteria.models), default=None)
        if first is not None:
            models += [first[:length] + "*" for length in self.prefix_lengths if length <= len(first)]
        return self._rivals.of(rule, models)

    @property
    def containers(self) -> list[object]:
        """Whatever grows with the number of policies."""
        return [self.drawers, self.rules, self._rivals.drawers]


def _emptying(run: list[T]) -> Iterator[T]:
    """The entries from the last to the first. Each goes when it has been read, not all at once at the end."""
    while run:
        yield run.pop()


def mismatch(rule: Rule, request: Request) -> str | None:
    """The first criterion that does not hold, or None where the rule takes the request."""
    if rule.tenants and request.tenant_id not in rule.tenants:
        return "tenants"
    if rule.environments and request.environment not in rule.environments:
        return "environments"
    if not rule.any_model and not model_matches(rule, request.model):
        return "models"
    for name, value in rule.headers:
        if request.headers.get(name) != value:
            return "headers"
    if rule.percent < 100 and not within(
        rule.percent, rule.policy.id, key_of(rule.policy.criteria.sticky_key, request)
    ):
        return "percent"
    return None


def visible_models(
    matcher: Matcher, tenant: str, environment: str | None, headers: Mapping[str, str]
) -> tuple[str, ...]:
    """The models named without a wildcard by rules that take such a caller, sorted.

    ``percent`` is no reason to hide a model, unless it is 0.
    """
    seen: set[str] = set()
    for rule in matcher.rules:
        if (
            rule.exact_models
            and rule.percent > 0
            and (not rule.tenants or tenant in rule.tenants)
            and (not rule.environments or environment in rule.environments)
            and all(headers.get(name) == value for name, value in rule.headers)
        ):
            seen |= rule.exact_models
    return tuple(sorted(seen))


def specificity(criteria: Criteria) -> tuple[int, int, int, int, int]:
    """Larger is more specific; the order of the parts is the module's promise."""
    literal = -1
    if criteria.models:
        globs = [pattern for pattern in criteria.models if WILDCARDS.search(pattern)]
        literal = min((len(WILDCARDS.sub("", pattern)) for pattern in globs), default=_EXACT)
    return (
        1 if criteria.tenants else 0,
        literal,
        len(criteria.headers),
        1 if criteria.environments else 0,
        1 if criteria.percent < 100 else 0,
    )


def _order(policy: CompiledPolicy) -> _Order:
    negated = tuple(-part for part in specificity(policy.criteria))
    # Without its Z an instant of a whole second sorts before one of a fraction of that second, as it should.
    return (-policy.priority, negated, policy.created_at.removesuffix("Z"), policy.name)


def _rule(policy: CompiledPolicy, rank: int) -> Rule:
    criteria = policy.criteria
    exact, prefixes, patterns, anything = [], [], [], not criteria.models
    for pattern in criteria.models:
        if not WILDCARDS.search(pattern):
            exact.append(pattern)
        elif not WILDCARDS.search(pattern[:-1]) and pattern[-1] == "*":
            prefixes.append(pattern[:-1])
        else:
            patterns.append(re.compile(translate(pattern)).match)
    return Rule(
        policy=policy,
        rank=rank,
        tenants=criteria.tenants,
        environments=criteria.environments,
        exact_models=frozenset(exact),
        model_prefixes=tuple(prefixes),
        model_patterns=tuple(patterns),
        any_model=anything,
        headers=criteria.headers,
        percent=criteria.percent,
    )


def _drawers_of(rule: Rule) -> Sequence[Drawer]:
    tenants: Sequence[str | None] = sorted(rule.tenants) or (None,)
    models: Sequence[str | None] = (None,)
    if _by_prefix(rule):
        models = [prefix + "*" for prefix in sorted(rule.model_prefixes)] + sorted(rule.exact_models)
    elif rule.exact_models and not rule.model_patterns:
        models = sorted(rule.exact_models)
    if len(tenants) * len(models) > MAX_PLACES:
        models = (None,)
    return [(tenant, model) for tenant in tenants for model in models]


def _by_prefix(rule: Rule) -> bool:
    """Whether the drawers of its models' prefixes hold the rule: not one with a wildcard in the middle."""
    return bool(rule.model_prefixes) and not rule.model_patterns


def model_matches(rule: Rule, model: str | None) -> bool:
    """Whether one of the models or globs that the rule states takes this one."""
    if model is None:
        return False
    if model in rule.exact_models or model.startswith(rule.model_prefixes):
        return True
    return any(pattern(model) is not None for pattern in rule.model_patterns)


def head(pattern: str) -> str:
    """The part before the first wildcard, with which all that it matches begins."""
    return WILDCARDS.split(pattern, maxsplit=1)[0]
