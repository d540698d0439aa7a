"""The breaker against a plain model, written from the rules, that keeps every call and counts anew."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from beamline_sdk.breaker import BUCKETS, Breaker, BreakerSettings


class BreakerModel(RuleBasedStateMachine):
    """A plain breaker written from the rules: it keeps every call and recounts the window each time."""

    def __init__(self) -> None:
        super().__init__()
        self.settings = BreakerSettings(
            failure_threshold=3,
            window_s=6.0,
            open_s=4.0,
            max_open_s=10.0,
            half_open_successes=2,
            slow_min_calls=4,
        )
        self.real = Breaker(self.settings, random=lambda: 0.0)
        self.now = 100.0
        self.state = "closed"
        self.calls: list[tuple[int, bool, bool]] = []
        self.under_way: list[tuple[int, int, bool]] = []
        self.generation = 0
        self.probe_out = False
        self.good = 0
        self.openings = 0
        self.reopens = 0.0
        self.pause_until = 0.0

    def enter(self, state: str) -> None:
        self.state = state
        self.generation += 1
        self.probe_out = False
        self.good = 0
        self.calls = []

    def open(self) -> None:
        self.openings += 1
        self.enter("open")
        self.reopens = self.now + min(4.0 * 2 ** (self.openings - 1), 10.0)

    def count(self, failed: bool, slow: bool) -> None:
        index = int(self.now / (self.settings.window_s / BUCKETS))
        self.calls.append((index, failed, slow))
        live = [call for call in self.calls if call[0] > index - BUCKETS]
        failures = sum(call[1] for call in live)
        slows = sum(call[2] for call in live)
        too_many = failures >= self.settings.failure_threshold and failures / len(live) >= 0.5
        many_slow = bool(slows) and len(live) >= 4 and slows / len(live) >= 0.8
        if (failed and (too_many or many_slow)) or (slow and (too_many or many_slow)):
            self.open()

    @rule(seconds=st.sampled_from([0.05, 0.5, 1.0, 4.0, 7.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def a_call_asks(self) -> None:
        could = self.real.available(self.now)
        found = self.real.acquire(self.now)
        assert could == (found is not None)
        self.expect(found)

    def expect(self, found: int | None) -> None:
        allowed = self.now >= self.pause_until
        if allowed and self.state == "open" and self.now >= self.reopens:
            self.enter("half-open")
        if self.state in {"open", "isolated"} or (self.state == "half-open" and self.probe_out):
            allowed = False
        assert (found is not None) == allowed
        if found is not None:
            self.probe_out = self.state == "half-open"
            self.under_way.append((found, self.generation, False))

    @rule()
    def a_call_asks_as_the_last_hope_of_its_request(self) -> None:
        found = self.real.trial(self.now)
        if self.state != "open" or self.now >= self.reopens:
            self.expect(found)
            return
        allowed = self.now >= self.pause_until and not self.probe_out
        assert (found is not None) == allowed
        if found is not None:
            self.probe_out = True
            self.under_way.append((found, self.generation, True))

    @rule(threshold=st.integers(1, 5))
    def the_settings_change(self, threshold: int) -> None:
        self.settings = replace(self.settings, failure_threshold=threshold)
        self.real.configure(self.settings)

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), slow=st.booleans())
    def a_call_succeeds(self, data: st.DataObject, slow: bool) -> None:
        found, generation, trial = self.under_way.pop(data.draw(st.integers(0, len(self.under_way) - 1)))
        self.real.success(found, self.now, slow=slow)
        if generation != self.generation:
            return
        if trial:
            self.enter("half-open")
        if self.state == "closed":
            self.count(False, slow)
        else:
            self.probe_out = False
            self.good += 1
            if self.good == 2:
                self.openings = 0
                self.enter("closed")

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), slow=st.booleans())
    def a_call_fails(self, data: st.DataObject, slow: bool) -> None:
        found, generation, trial = self.under_way.pop(data.draw(st.integers(0, len(self.under_way) - 1)))
        self.real.failure(found, self.now, slow=slow)
        if generation != self.generation:
            return
        if trial:
            self.probe_out = False
        elif self.state == "closed":
            self.count(True, slow)
        else:
            self.open()

    @precondition(lambda self: self.under_way)
    @rule(data=st.data())
    def a_call_is_cancelled(self, data: st.DataObject) -> None:
        found, generation, _ = self.under_way.pop(data.draw(st.integers(0, len(self.under_way) - 1)))
        self.real.release(found)
        if generation == self.generation:
            self.probe_out = False

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), seconds=st.sampled_from([0.5, 3.0]))
    def a_call_meets_a_429(self, data: st.DataObject, seconds: float) -> None:
        found, generation, _ = self.under_way.pop(data.draw(st.integers(0, len(self.under_way) - 1)))
        self.real.cooldown(found, self.now, seconds)
        if generation == self.generation:
            self.probe_out = False
            self.pause_until = max(self.pause_until, self.now + seconds)

    @rule()
    def somebody_isolates(self) -> None:
        self.real.isolate()
        self.enter("isolated")

    @rule()
    def somebody_resets(self) -> None:
        self.real.reset()
        self.openings = 0
        self.pause_until = 0.0
        self.enter("closed")

    @invariant()
    def both_are_in_the_same_state(self) -> None:
        assert self.real.state == self.state

    @invariant()
    def both_know_when_to_ask_again(self) -> None:
        if self.state == "isolated":
            assert self.real.reopens_at() == float("inf")
        elif self.state == "open":
            assert self.real.reopens_at() == max(self.reopens, self.pause_until)
        assert self.real.cooling(self.now) == (self.now < self.pause_until and self.state != "isolated")


TestBreakerModel = BreakerModel.TestCase
TestBreakerModel.settings = hypothesis_settings(max_examples=100, stateful_step_count=40)
