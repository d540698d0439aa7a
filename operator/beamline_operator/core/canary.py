"""The canary of a version: a state machine without a clock, a network or a memory of its own.

:func:`advance` is given what was remembered (``status.canary``), what the object asks for and what is known,
and says what is remembered next. Everything it rests on stands in status, apart from the calls that were
counted: whoever takes over goes on at the same step and counts that step's calls anew. So a restart can delay
a promotion, never cause one.

```
Waiting -> Progressing(1) -> Progressing(2) -> ... -> Promoted
                |   ^             |
                v   |             +--> RolledBack   a gate is broken, the workload fails, the breaker opens
              Paused              +--> Aborted      beamline.io/abort
```

What is over (Promoted, RolledBack, Aborted) stays over until the spec changes; only the two annotations move
it before, each value once. An empty value, ``false`` and a value that was acted upon say nothing.

Weights are percent of the requests to the base. :func:`divided` turns them into the weights of the registry's
rows, of which routers know nothing but that they are relative.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from math import gcd
from typing import Any, Final, Literal

from beamline_contract.canary import CanaryGates, VersionCanary
from beamline_contract.extension import ExtensionSpec
from beamline_contract.names import GROUP

PROMOTE: Final = f"{GROUP}/promote"
"""Annotation: a new value promotes at once; one that begins with ``step`` ends the present step."""
ABORT: Final = f"{GROUP}/abort"
"""Annotation: a new value takes all requests from the canary."""
MAX_WEIGHT: Final = 1_000
"""Bound of a row's weight, as of ``spec.weight``."""
_MEANINGLESS: Final = frozenset({"", "false", "no", "0"})
_UNTRIED: Final = frozenset(
    {"canary", "weight", "enabled", "suspend", "metadata", "deletionPolicy", "allowedNamespaces"}
)
"""Fields whose change makes no new canary."""


class State(StrEnum):
    """Where a canary stands."""

    WAITING = "Waiting"
    PROGRESSING = "Progressing"
    PAUSED = "Paused"
    PROMOTED = "Promoted"
    ROLLED_BACK = "RolledBack"
    ABORTED = "Aborted"


OVER: Final = frozenset({State.PROMOTED, State.ROLLED_BACK, State.ABORTED})


@dataclass(frozen=True, slots=True)
class CanaryStatus:
    """What is remembered. ``step`` counts from 1, 0 before the first; ``weight`` is percent; ``since`` is
    when the step began, RFC 3339.
    """

    state: State = State.WAITING
    step: int = 0
    weight: int = 0
    since: str = ""
    revision: str = ""
    message: str = ""
    promote: str = ""
    abort: str = ""

    @property
    def mark(self) -> str:
        """Identifies this step of this try; calls are counted from its first sight on."""
        return f"{self.revision}/{self.step}/{self.since}"

    def to_status(self) -> dict[str, Any]:
        """As it stands in ``status.canary``."""
        stated = {name: getattr(self, name) for name in ("since", "revision", "message", "promote", "abort")}
        return {
            "state": self.state.value,
            "step": self.step,
            "weight": self.weight,
            **{name: value for name, value in stated.items() if value},
        }


@dataclass(frozen=True, slots=True)
class Samples:
    """Calls of the present step over all routers. ``latency_ms_sum`` is over all of them."""

    calls: int = 0
    failures: int = 0
    latency_ms_sum: float = 0.0


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known when a canary is decided upon.

    ``blocked`` says why the canary can't begin or go on now; ``failed`` what makes it hopeless.
    """

    now: datetime
    samples: Samples = Samples()
    breaker: str = "closed"
    blocked: str | None = None
    failed: str | None = None
    promote: str = ""
    abort: str = ""


def remembered(status: Mapping[str, Any]) -> CanaryStatus | None:
    """``status.canary`` as it was written; None where there is none, or none that can be read."""
    found = status.get("canary")
    if not isinstance(found, Mapping):
        return None
    try:
        return CanaryStatus(
            state=State(str(found.get("state"))),
            step=int(found.get("step", 0)),
            weight=max(0, min(100, int(found.get("weight", 0)))),
            **{n: str(found.get(n, "")) for n in ("since", "revision", "message", "promote", "abort")},
        )
    except (ValueError, TypeError):
        return None


def revision_of(spec: ExtensionSpec) -> str:
    """16 hex digits over everything that is tried out. The number of replicas is not, and neither is a field
    that a later version adds while it has its default: an upgrade starts no canary anew.
    """
    document = {name: value for name, value in spec.stated().items() if name not in _UNTRIED}
    if isinstance(workload := document.get("workload"), dict):
        document["workload"] = {name: value for name, value in workload.items() if name != "replicas"}
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:16]


def advance(canary: VersionCanary, revision: str, old: CanaryStatus | None, facts: Facts) -> CanaryStatus:
    """What is remembered next; at most one transition."""
    state = old or CanaryStatus()
    if state.revision != revision:
        state = CanaryStatus(revision=revision, promote=state.promote, abort=state.abort)
    promote = _news(facts.promote, state.promote)
    abort = _news(facts.abort, state.abort)
    state = replace(state, promote=facts.promote, abort=facts.abort)
    if abort and state.state is not State.ABORTED:
        return _over(state, State.ABORTED, 0, f"Ended by {ABORT} at {_place(canary, state)}.", facts)
    if promote and not facts.promote.startswith("step") and state.state is not State.PROMOTED:
        return _over(state, State.PROMOTED, 100, f"Promoted by {PROMOTE}.", facts)
    if state.state in OVER:
        return state
    if facts.failed is not None:
        return _over(state, State.ROLLED_BACK, 0, f"At {_place(canary, state)}: {facts.failed}", facts)
    if state.state is State.WAITING or not state.step:
        if facts.blocked is not None:
            return replace(state, state=State.WAITING, step=0, weight=0, message=facts.blocked)
        return _begin(canary, state, 1, facts)
    state = _within(canary, state)
    breach = breach_of(canary.gates, facts)
    if breach is not None:
        return _over(state, State.ROLLED_BACK, 0, f"At {_place(canary, state)}: {breach}", facts)
    if promote:
        return _begin(canary, state, state.step + 1, facts)
    return _watched(canary, state, facts)


def held(canary: VersionCanary, known: CanaryStatus) -> CanaryStatus:
    """What is remembered while the registry does not get the spec: what it holds goes on as it stands, and
    the annotations wait for a spec that they can act upon.
    """
    if known.state in OVER:
        return known
    why = "this generation is not accepted; see the conditions Accepted and ResolvedRefs."
    if not known.step:
        return replace(known, state=State.WAITING, message=why)
    return replace(known, state=State.PAUSED, message=f"{_place(canary, known)}: {why}")


def _watched(canary: VersionCanary, state: CanaryStatus, facts: Facts) -> CanaryStatus:
    """A step whose gates hold: it goes on, ends, or can't be judged."""
    step = canary.steps[state.step - 1]
    if elapsed_s(state, facts.now) < step.pause_seconds:
        return replace(state, state=State.PROGRESSING, message=_told(canary, state))
    if facts.blocked is not None:
        return replace(state, state=State.PAUSED, message=f"{_place(canary, state)}: {facts.blocked}")
    if facts.samples.calls < canary.gates.min_samples:
        seen = (
            "no call was" if not facts.samples.calls else f"fewer than {canary.gates.min_samples} calls were"
        )
        told = f"{_place(canary, state)}: {seen} seen since it began; it goes on when routers report more."
        return replace(state, state=State.PAUSED, message=told)
    return _begin(canary, state, state.step + 1, facts)


def breach_of(gates: CanaryGates, facts: Facts) -> str | None:
    """The gate that is broken, in words. An open breaker speaks for itself, whatever the number of calls."""
    samples = facts.samples
    if facts.breaker in {"open", "isolated"} and samples.failures:
        return f"its breaker is {facts.breaker} in at least one router."
    if samples.calls < max(1, gates.min_samples):
        return None
    rate = samples.failures / samples.calls
    if rate > gates.max_error_rate:
        return (
            f"{samples.failures} of {samples.calls} calls failed, "
            f"spec.canary.gates.maxErrorRate is {gates.max_error_rate:g}."
        )
    mean = samples.latency_ms_sum / samples.calls
    if gates.max_latency_ms is not None and mean > gates.max_latency_ms:
        return (
            f"{samples.calls} calls took {mean:.0f} ms on average, "
            f"spec.canary.gates.maxLatencyMs is {gates.max_latency_ms}."
        )
    return None


def elapsed_s(state: CanaryStatus, now: datetime) -> float:
    """Seconds of the present step; a clock that went back counts as none."""
    try:
        began = datetime.strptime(state.since, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        return 0.0
    return max(0.0, (now - began).total_seconds())


def divided(members: Iterable[tuple[str, int, CanaryStatus | None]]) -> dict[str, int]:
    """The weights of the rows of a base and its versions.

    ``members`` are (id, stated weight, canary or None), those with a canary in the order in which they shall
    count: each takes its percent from all before it. A single base is divided exactly; several are rounded
    where whole numbers up to :data:`MAX_WEIGHT` can't say it, but none that has a share loses it.
    """
    weights: dict[str, int] = {}
    for identifier, stated, canary in members:
        if canary is None:
            weights[identifier] = stated
            continue
        percent = canary.weight
        if percent >= 100:
            weights = {**dict.fromkeys(weights, 0), identifier: 100}
        elif percent:
            total = sum(weights.values())
            weights = {other: weight * (100 - percent) for other, weight in weights.items()}
            weights[identifier] = percent * max(1, total)
            weights = _bounded(weights)
        else:
            weights[identifier] = 0
    return weights


def _bounded(weights: dict[str, int]) -> dict[str, int]:
    common = gcd(*weights.values()) or 1
    whole = {identifier: weight // common for identifier, weight in weights.items()}
    largest = max(whole.values())
    if largest <= MAX_WEIGHT:
        return whole
    return {i: max(1, round(w * MAX_WEIGHT / largest)) if w else 0 for i, w in whole.items()}


def _begin(canary: VersionCanary, state: CanaryStatus, step: int, facts: Facts) -> CanaryStatus:
    if step > len(canary.steps):
        return _over(state, State.PROMOTED, 100, f"All {len(canary.steps)} steps held.", facts)
    begun = replace(
        state,
        state=State.PROGRESSING,
        step=step,
        weight=canary.steps[step - 1].weight,
        since=_stamp(facts.now),
    )
    return replace(begun, message=_told(canary, begun))


def _within(canary: VersionCanary, state: CanaryStatus) -> CanaryStatus:
    """The steps may have been edited meanwhile: the step counts, its weight is what the spec says now."""
    step = min(state.step, len(canary.steps))
    return replace(state, step=step, weight=canary.steps[step - 1].weight)


def _over(state: CanaryStatus, end: State, weight: int, message: str, facts: Facts) -> CanaryStatus:
    return replace(state, state=end, weight=weight, message=message, since=_stamp(facts.now))


def act_between(
    before: CanaryStatus | None, after: CanaryStatus | None
) -> tuple[Literal["promote", "abort"], dict[str, Any]] | None:
    """The act of a person that made one status of the other, and what it changed, field by field; None where
    nobody acted.
    """
    if after is None:
        return None
    old = before or CanaryStatus()
    word: Literal["promote", "abort"] = "abort" if _news(after.abort, old.abort) else "promote"
    value, seen = getattr(after, word), getattr(old, word)
    if not _news(value, seen):
        return None
    changes: dict[str, Any] = {f"annotations.{GROUP}/{word}": {"from": seen or None, "to": value}}
    for name, was, now in (
        ("state", old.state.value, after.state.value),
        ("step", old.step, after.step),
        ("weight", old.weight, after.weight),
    ):
        if was != now:
            changes[f"canary.{name}"] = {"from": was, "to": now}
    return word, changes


def _news(asked: str, seen: str) -> bool:
    return asked.lower() not in _MEANINGLESS and asked != seen


def _place(canary: VersionCanary, state: CanaryStatus) -> str:
    return f"step {state.step} of {len(canary.steps)} ({state.weight} %)"


def _told(canary: VersionCanary, state: CanaryStatus) -> str:
    pause = canary.steps[state.step - 1].pause_seconds
    return f"{_place(canary, state)}, for {pause} s or longer.".capitalize()


def _stamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
