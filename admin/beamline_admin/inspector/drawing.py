"""A policy as a drawing: columns from left to right, boxes in each, what flows between them. Pure.

What runs at the same time stands in one column: validators of one group, and those that overlap the provider
call. A shadow step stands where it runs, but nothing flows through it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from beamline_contract.names import TYPE_OF_ACTION
from beamline_contract.projection import effective_failure_mode

from .digest import Digest, Line
from .traffic import Count, PolicyCount

TITLES: Final = {"pre": "Prepare", "validator": "Check", "provider": "Provider", "post": "Finish"}
STRATEGIES: Final = {
    "ordered": "first that can",
    "weighted": "by weight",
    "least_inflight": "fewest calls in flight",
    "latency": "fastest",
    "sticky": "by key",
    "score": "best score",
}


PROVIDER: Final = "provider"
"""Name of a select_provider step that states none, as routers count it."""


@dataclass(frozen=True, slots=True)
class Box:
    """One extension. ``share`` is percent of the requests that its weight asks for."""

    id: str
    name: str
    """Of the step, where it differs from the id."""
    fault: str = ""
    mode: str = "enforce"
    overlap: bool = False
    facts: tuple[str, ...] = ()
    share: float | None = None
    canary: float | None = None
    count: Count | None = None
    fallback: str = ""
    """The extension that is asked instead."""

    @property
    def shadow(self) -> bool:
        """Whether it only watches."""
        return self.mode == "shadow"


@dataclass(frozen=True, slots=True)
class Column:
    """What happens at one time. ``number`` counts from 1; ``how`` says how the boxes relate."""

    type: str
    number: int
    boxes: tuple[Box, ...]
    how: str = ""
    fallback: tuple[Box, ...] = ()
    count: Count | None = None
    """Calls of the whole column, where its boxes can't tell: of all providers together."""

    @property
    def title(self) -> str:
        """What the column does."""
        return TITLES.get(self.type, self.type)


@dataclass(frozen=True, slots=True)
class Drawing:
    """``arrivals`` are the requests of the policy; ``flows[n]`` is what enters column ``n``."""

    columns: tuple[Column, ...]
    arrivals: Count | None
    flows: tuple[Count | None, ...] = field(default=())


def drawing_of(line: Line, digest: Digest, counted: PolicyCount | None) -> Drawing:
    """The drawing of a policy; ``counted`` None where nobody measures."""
    document = line.record.policy
    columns: list[Column] = []
    group_before: str | None = None
    for step in document.get("steps", ()):
        group = step.get("group") or ("\0overlap" if step.get("overlap") else None)
        column = _column(step, document, digest, counted, len(columns) + 1)
        if group is not None and group == group_before:
            column = _joined(columns.pop(), column)
        columns.append(column)
        group_before = group
    arrivals = counted.all if counted is not None else None
    return Drawing(tuple(columns), arrivals, tuple(_flow(column, arrivals) for column in columns))


def summary_of(line: Line) -> list[tuple[str, int, int]]:
    """A policy in one line of a list: (type, steps or providers, fallbacks) of each run of equal types."""
    found: list[tuple[str, int, int]] = []
    for step in line.record.policy.get("steps", ()):
        kind = TYPE_OF_ACTION.get(step["action"], step["action"])
        count, instead = 1, int("fallback_id" in step)
        if kind == "provider":
            count = len(step.get("providers", ())) or 1
            instead = len(step.get("fallback") or line.record.policy.get("fallback", ()))
        if found and found[-1][0] == kind:
            _, before, others = found.pop()
            count, instead = count + before, instead + others
        found.append((kind, count, instead))
    return found


def _column(
    step: Mapping[str, Any],
    document: Mapping[str, Any],
    digest: Digest,
    counted: PolicyCount | None,
    number: int,
) -> Column:
    kind = TYPE_OF_ACTION.get(step["action"], step["action"])
    if kind == "provider":
        instead = step.get("fallback") or document.get("fallback", ())
        fallback = tuple(_box(one, step, digest, None) for one in instead)
        calls = counted.steps.get(str(step.get("name") or PROVIDER)) if counted is not None else None
        return Column(kind, number, tuple(_candidates(step, digest)), _strategy(step), fallback, calls)
    box = _box(step["extension_id"], step, digest, counted)
    box = replace(
        box,
        mode=step.get("mode", "enforce"),
        overlap=bool(step.get("overlap")),
        fallback=step.get("fallback_id", ""),
    )
    how = f"in parallel, group {step['group']}" if step.get("group") else ""
    return Column(kind, number, (box,), "beside the provider call" if box.overlap else how)


def _candidates(step: Mapping[str, Any], digest: Digest) -> Iterator[Box]:
    canary = step.get("canary")
    if canary is not None:
        yield replace(_box(canary["provider_id"], step, digest, None), canary=float(canary.get("percent", 0)))
    choices = step.get("providers") or ()
    if not choices:
        yield _box(step["provider_id"], step, digest, None)
        return
    total = sum(choice["weight"] for choice in choices)
    weighted = _strategy_word(step) == "weighted" and total > 0
    for choice in choices:
        box = _box(choice["provider_id"], step, digest, None)
        yield replace(box, share=100.0 * choice["weight"] / total) if weighted else box


def _box(identifier: str, step: Mapping[str, Any], digest: Digest, counted: PolicyCount | None) -> Box:
    record = digest.extensions.get(identifier)
    name = str(step.get("name") or "")
    facts = []
    if record is not None:
        retry = step.get("retry", record.retry)
        facts = [
            f"{step.get('timeout_ms', record.timeout_ms)} ms",
            f"{retry} {'retry' if retry == 1 else 'retries'}",
        ]
        if record.type != "provider":
            facts.append(f"fails {step.get('failure_mode') or effective_failure_mode(record)}")
    if step.get("config") and "extension_id" in step:
        facts.append("own config")
    count = None
    if counted is not None:
        count = counted.steps.get(name or identifier)
    return Box(identifier, name, digest.fault(identifier), facts=tuple(facts), count=count)


def _joined(before: Column, column: Column) -> Column:
    return replace(before, boxes=(*before.boxes, *column.boxes))


def _flow(column: Column, arrivals: Count | None) -> Count | None:
    """What enters a column: the most that one of its boxes saw."""
    if arrivals is None or column.count is not None:
        return column.count
    seen = [box.count for box in column.boxes if box.count is not None]
    return max(seen, key=lambda count: count.requests, default=None)


def _strategy_word(step: Mapping[str, Any]) -> str:
    weights = {choice["weight"] for choice in step.get("providers") or ()}
    return str(step.get("strategy") or ("weighted" if len(weights) > 1 else "ordered"))


def _strategy(step: Mapping[str, Any]) -> str:
    if len(step.get("providers") or ()) < 2:
        return ""
    return STRATEGIES.get(_strategy_word(step), _strategy_word(step))
