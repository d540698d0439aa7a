"""What a router remembers about extensions between requests: breakers, retry budgets, calls in flight,
latencies.

It lives as long as the process and survives snapshot swaps: a new timeout does not close an open breaker.
Everything is keyed by extension id, and each version of an extension has an id; a step with breaker settings,
a retry budget or a bulkhead of its own has them under ``id@policy/step``, a policy's own retry budgets are
under ``id@policy``, those that an extension states under its id. :meth:`Runtime.adopt` is called after each
swap: it takes over changed settings and forgets what is gone. All of it runs on the one thread of the event
loop, between awaits; there are no locks because nothing yields.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal, Protocol

from beamline_sdk.breaker import CLOSED, Breaker, BreakerSettings, BreakerState

from .ports import Recorder
from .retry import RetryBudget
from .route import Call, CompiledExtension
from .score import expected_ms
from .selection import LATENCY_MEMORY_S
from .snapshot import Snapshot
from .upkeep import Upkeep

EWMA_SHARE: Final = 0.2
"""Weight of the newest call in the moving average of latencies."""


class Rng(Protocol):
    """Randomness; :class:`random.Random` is one."""

    def random(self) -> float:
        """A float in [0, 1)."""
        ...

    def getrandbits(self, k: int, /) -> int:
        """An integer of ``k`` random bits."""
        ...


class Load:
    """Counters of one extension, or of one step's own bulkhead, in this router.

    ``latency_s`` is a moving average of answered calls.
    """

    __slots__ = ("budget", "in_flight", "last_at", "latency_s")

    def __init__(self) -> None:
        self.budget = RetryBudget()
        self.in_flight = 0
        self.latency_s = 0.0
        self.last_at = 0.0

    def observe(self, seconds: float, now: float) -> None:
        """One call was answered after ``seconds``."""
        if self.latency_s == 0.0:
            self.latency_s = seconds
        else:
            self.latency_s += EWMA_SHARE * (seconds - self.latency_s)
        self.last_at = now


class Guard:
    """What stands between a step and its extension: breaker, retry budget, the bulkheads of both."""

    __slots__ = ("breaker", "budget", "gate", "load")

    def __init__(self, breaker: Breaker, budget: RetryBudget, load: Load, gate: Load | None) -> None:
        self.breaker = breaker
        self.budget = budget
        self.load = load
        self.gate = gate

    def enter(self, call: Call) -> Literal["extension", "step"] | None:
        """Takes a place in the bulkheads, or says whose is full and takes none."""
        load, gate = self.load, self.gate
        if load.in_flight >= call.concurrency:
            return "extension"
        if gate is not None:
            if gate.in_flight >= call.gate_limit:
                return "step"
            gate.in_flight += 1
        load.in_flight += 1
        return None

    def leave(self) -> None:
        """Gives back what :meth:`enter` took."""
        self.load.in_flight -= 1
        if self.gate is not None:
            self.gate.in_flight -= 1


class Runtime:
    """``clock`` gives monotonic seconds; ``recorder`` hears of breaker changes under the breaker's key."""

    def __init__(self, clock: Callable[[], float], rng: Rng, recorder: Recorder) -> None:
        self._clock = clock
        self._rng = rng
        self._recorder = recorder
        self._breakers: dict[str, Breaker] = {}
        self._loads: dict[str, Load] = {}
        self._budgets: dict[str, RetryBudget] = {}
        self._isolated: set[str] = set()
        self._guards: dict[Call, Guard] = {}
        self._upkeep: Upkeep | None = None

    def guard(self, call: Call) -> Guard:
        """All that guards this call, found by one look-up: a snapshot's calls stay the same objects."""
        found = self._guards.get(call)
        if found is None:
            gate = None if call.gate is None else self.load(call.gate)
            found = Guard(self.breaker(call), self.budget(call), self.load(call.load_key), gate)
            self._guards[call] = found
        return found

    def breaker(self, call: Call) -> Breaker:
        """The breaker that guards this call, made on first use."""
        found = self._breakers.get(call.breaker_key)
        return found if found is not None else self._new_breaker(call.breaker_key, call.breaker)

    def load(self, extension_id: str) -> Load:
        """The counters of an extension, made on first use."""
        found = self._loads.get(extension_id)
        if found is None:
            found = self._loads[extension_id] = Load()
        return found

    def budget(self, call: Call) -> RetryBudget:
        """The retry budget of this call: the step's own, the policy's or the extension's, whichever is stated
        first; else the extension's with the defaults.
        """
        if call.budget_key is None or call.budget is None:
            return self.load(call.load_key).budget
        found = self._budgets.get(call.budget_key)
        if found is None:
            known = None if self._upkeep is None else self._upkeep.budgets.get(call.budget_key)
            found = self._budgets[call.budget_key] = RetryBudget(known or call.budget)
        return found

    def available(self, call: Call) -> bool:
        """Whether the breaker would let a call through now; changes nothing."""
        found = self._breakers.get(call.breaker_key)
        return found is None or found.available(self._clock())

    def adopt(self, snapshot: Snapshot) -> None:
        """Takes over the settings of a new snapshot; forgets breakers and counters of ids that are gone."""
        self._guards.clear()
        self._upkeep = upkeep = snapshot.upkeep
        settings, budgets = upkeep.breakers, upkeep.budgets
        self._isolated &= snapshot.compiled_extensions.keys()
        for key in [key for key in self._breakers if key not in settings]:
            del self._breakers[key]
        for key, breaker in self._breakers.items():
            if breaker.settings != settings[key]:
                breaker.configure(settings[key])
        for key in [key for key in self._budgets if key not in budgets]:
            del self._budgets[key]
        for key, budget in self._budgets.items():
            if budget.settings != budgets[key]:
                budget.configure(budgets[key])
        gone = [key for key, load in self._loads.items() if key not in upkeep.loads and not load.in_flight]
        for extension_id in gone:
            del self._loads[extension_id]

    def in_flight(self) -> dict[str, int]:
        """Calls that are under way, by extension; those without any are left out."""
        return {name: load.in_flight for name, load in self._loads.items() if load.in_flight}

    def breaker_states(self) -> dict[str, str]:
        """The word of every breaker that has been used, by its key."""
        return {key: breaker.state for key, breaker in self._breakers.items()}

    def observed(self, call: Call) -> dict[str, object]:
        """What is known of a call's extension now, as JSON types; makes nothing that was not there."""
        now = self._clock()
        breaker = self._breakers.get(call.breaker_key)
        load = self._loads.get(call.load_key)
        budget = None if load is None else load.budget
        if call.budget_key is not None:
            budget = self._budgets.get(call.budget_key)
        wait_s = 0.0 if breaker is None else breaker.reopens_at() - now
        return {
            "breaker": CLOSED if breaker is None else breaker.state,
            "available": self.available(call),
            "reopens_in_ms": round(wait_s * 1000) if 0 < wait_s < float("inf") else None,
            "in_flight": 0 if load is None else load.in_flight,
            "latency_ms": None if load is None or not load.last_at else round(load.latency_s * 1000, 3),
            "retry_tokens": None if budget is None else budget.tokens,
        }

    def expected_ms(self, call: Call) -> float | None:
        """Milliseconds that a call is expected to take, from its hint and from what was measured here."""
        load = self._loads.get(call.extension_id)
        hint = call.hints.latency_ms
        if load is None or not load.last_at:
            return hint
        return expected_ms(hint, load.latency_s * 1000, self._clock() - load.last_at, LATENCY_MEMORY_S)

    def isolate(self, extension: CompiledExtension) -> None:
        """Refuses every call to an extension until :meth:`reset`, also from steps that a later snapshot
        brings.

        It lasts for as long as the registry holds the extension, enabled or not.
        """
        self._isolated.add(extension.id)
        for breaker in self._breakers_of(extension):
            breaker.isolate()

    def reset(self, extension: CompiledExtension) -> None:
        """Closes the breakers of an extension at once."""
        self._isolated.discard(extension.id)
        for breaker in self._breakers_of(extension):
            breaker.reset()

    def _breakers_of(self, extension: CompiledExtension) -> list[Breaker]:
        if extension.id not in self._breakers:
            self._new_breaker(extension.id, extension.breaker)
        own = f"{extension.id}@"
        return [
            breaker for key, breaker in self._breakers.items() if key == extension.id or key.startswith(own)
        ]

    def _new_breaker(self, key: str, settings: BreakerSettings) -> Breaker:
        def changed(state: BreakerState) -> None:
            self._recorder.breaker(key, state)

        # A request that began before a swap may be the first to need it: what holds now counts.
        known = None if self._upkeep is None else self._upkeep.breakers.get(key)
        settings = known or settings
        breaker = self._breakers[key] = Breaker(settings, random=self._rng.random, on_change=changed)
        if key.partition("@")[0] in self._isolated:
            breaker.isolate()
        return breaker
