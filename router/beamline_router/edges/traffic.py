"""What the verb ``traffic`` answers: the counters of this router since its start, for whoever draws them.

They are the tallies that Prometheus scrapes, and one more: requests and steps by policy. Whoever asks twice
has the traffic between; nothing here knows about time. Policies that left the registry are forgotten when
somebody asks, so memory follows the table.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from heapq import nlargest
from typing import Any, Final, TypeVar

from beamline_contract.errors import CLIENT_FAULTS

from ..core.request import Answer, Failure
from ..core.snapshot import Snapshot
from ..core.state import Runtime
from .tallies import SECONDS_BUCKETS, Tally

MAX_LISTED: Final = 1_000
"""Extensions, and policies, in one answer: those with most calls, so that it stays below NATS' limit."""
_FAILED_STEPS: Final = frozenset({"error", "skipped"})
_CALLERS_FAULT: Final = frozenset(code.value.lower() for code in CLIENT_FAULTS)
_STATES: Final = ("closed", "half-open", "open", "isolated")
"""Of breakers, the worst last."""
Item = TypeVar("Item")


class PolicyTally:
    """Requests of one policy. ``steps`` has [calls, failed ones] by name."""

    __slots__ = ("errors", "requests", "steps")

    def __init__(self) -> None:
        self.requests = 0
        self.errors = 0
        self.steps: dict[str, list[int]] = {}

    def add(self, result: Answer | Failure) -> None:
        """One request ended. What is the caller's fault is no error."""
        self.requests += 1
        if type(result) is Failure and result.error.code not in CLIENT_FAULTS:
            self.errors += 1
        for entry in result.trail:
            counts = self.steps.get(entry.step)
            if counts is None:
                counts = self.steps[entry.step] = [0, 0]
            counts[0] += 1
            if entry.outcome in _FAILED_STEPS:
                counts[1] += 1


def traffic_of(
    doors: Mapping[str, Tally],
    extensions: Mapping[str, Tally],
    policies: dict[str, PolicyTally],
    snapshot: Snapshot | None,
) -> dict[str, Any]:
    """The answer. ``policies`` loses those that ``snapshot`` does not hold."""
    if snapshot is not None:
        for gone in policies.keys() - snapshot.compiled_policies.keys():
            del policies[gone]
    buckets = [0] * (len(SECONDS_BUCKETS) + 1)
    requests = errors = 0
    for tally in doors.values():
        requests += sum(tally.ends.values())
        errors += sum(count for end, count in tally.ends.items() if end != "ok" and end not in _CALLERS_FAULT)
        buckets = [one + more for one, more in zip(buckets, tally.buckets, strict=True)]
    return {
        "bounds": list(SECONDS_BUCKETS),
        "requests": requests,
        "errors": errors,
        "buckets": buckets,
        "extensions": {
            name: {
                "requests": sum(tally.ends.values()),
                "errors": sum(tally.ends.get(end, 0) for end in _FAILED_STEPS),
                "buckets": list(tally.buckets),
            }
            for name, tally in _busiest(extensions.items(), lambda one: sum(one.ends.values()))
        },
        "policies": {
            name: {
                "requests": tally.requests,
                "errors": tally.errors,
                "steps": {step: list(counts) for step, counts in tally.steps.items()},
            }
            for name, tally in _busiest(policies.items(), lambda one: one.requests)
        },
    }


def with_state(
    traffic: dict[str, Any], snapshot: Snapshot | None, runtime: Runtime, **now: Any
) -> dict[str, Any]:
    """``traffic`` and ``now``, with what each of its extensions is and does now: type, calls in flight,
    worst breaker.
    """
    known = {} if snapshot is None else snapshot.compiled_extensions
    busy = runtime.in_flight()
    breakers: dict[str, str] = {}
    for key, state in runtime.breaker_states().items():
        owner = key.partition("@")[0]
        breakers[owner] = max(breakers.get(owner, _STATES[0]), state, key=_STATES.index)
    for name, counts in traffic["extensions"].items():
        extension = known.get(name)
        counts["type"] = None if extension is None else extension.type
        counts["in_flight"] = busy.get(name, 0)
        counts["breaker"] = breakers.get(name, _STATES[0])
    return {**now, **traffic}


def _busiest(items: Iterable[tuple[str, Item]], count: Any) -> list[tuple[str, Item]]:
    listed = list(items)
    if len(listed) <= MAX_LISTED:
        return listed
    return nlargest(MAX_LISTED, listed, key=lambda pair: count(pair[1]))
