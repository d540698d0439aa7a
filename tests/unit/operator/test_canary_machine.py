"""The canary's state machine, driven by generated histories: time, calls and annotations are arguments."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamline_contract.canary import VersionCanary
from beamline_contract.extension import ExtensionSpec
from beamline_operator.core.canary import (
    MAX_WEIGHT,
    OVER,
    CanaryStatus,
    Facts,
    Samples,
    State,
    advance,
    divided,
    remembered,
    revision_of,
)

START = datetime(2030, 1, 1, tzinfo=UTC)
CANARY = VersionCanary.model_validate(
    {
        "steps": [{"weight": weight, "pauseSeconds": 30} for weight in (5, 25, 60)],
        "gates": {"maxErrorRate": 0.1, "maxLatencyMs": 200, "minSamples": 20},
    }
)


def facts(seconds: float = 0, calls: int = 0, failures: int = 0, latency: float = 0, **more: Any) -> Facts:
    """What is known ``seconds`` after the start; ``latency`` is the mean, in milliseconds."""
    return Facts(START + timedelta(seconds=seconds), Samples(calls, failures, latency * calls), **more)


def run(*known: Facts, old: CanaryStatus | None = None) -> CanaryStatus:
    state = old
    for one in known:
        state = advance(CANARY, "r1", state, one)
    assert state is not None
    return state


@dataclass(frozen=True)
class Moment:
    """What happens between two looks."""

    seconds: int
    calls: int
    failed: int
    latency: int
    promote: str
    abort: str
    blocked: bool


moments = st.builds(
    Moment,
    seconds=st.integers(0, 90),
    calls=st.integers(0, 60),
    failed=st.integers(0, 60),
    latency=st.integers(0, 400),
    promote=st.sampled_from(["", "", "", "step-1", "false"]),
    abort=st.sampled_from(["", "", "", "", "now"]),
    blocked=st.sampled_from([False, False, False, True]),
)


def known_at(moment: Moment, seconds: float) -> Facts:
    failures = min(moment.failed, moment.calls)
    blocked = "its workload is not ready" if moment.blocked else None
    return facts(
        seconds, moment.calls, failures, moment.latency,
        promote=moment.promote, abort=moment.abort, blocked=blocked,
    )  # fmt: skip


def through(history: list[Moment], *, restart_every: int | None = None) -> list[tuple[Facts, CanaryStatus]]:
    """Every state of a history; a restart knows nothing but what stands in status."""
    state: CanaryStatus | None = None
    seconds, seen = 0.0, []
    for number, moment in enumerate(history):
        seconds += moment.seconds
        known = known_at(moment, seconds)
        if restart_every is not None and state is not None and number % restart_every == 0:
            state = remembered({"canary": state.to_status()})
        state = advance(CANARY, "r1", state, known)
        seen.append((known, state))
    return seen


histories = st.lists(moments, min_size=1, max_size=25)


@given(histories)
def test_a_weight_is_one_of_the_steps_or_nothing_or_everything(history: list[Moment]) -> None:
    for _, state in through(history):
        assert state.weight in {0, 5, 25, 60, 100}
        assert (state.weight == 100) == (state.state is State.PROMOTED)
        if state.state in {State.WAITING, State.ROLLED_BACK, State.ABORTED}:
            assert state.weight == 0


@given(histories)
def test_no_step_ends_by_itself_without_enough_good_calls_and_time(history: list[Moment]) -> None:
    before = CanaryStatus()
    for known, state in through(history):
        went_on = state.step > before.step > 0 or (state.state is State.PROMOTED and before.state not in OVER)
        if went_on and not known.promote.startswith("step"):
            assert known.samples.calls >= CANARY.gates.min_samples
            assert known.samples.failures <= 0.1 * known.samples.calls
            assert known.samples.latency_ms_sum <= 200 * known.samples.calls
            assert known.blocked is None
            began = datetime.strptime(before.since, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
            assert (known.now - began).total_seconds() >= 30
        assert state.step <= before.step + 1
        before = state


@given(histories, st.integers(0, 100))
def test_an_abort_takes_all_requests_wherever_it_comes(history: list[Moment], later: int) -> None:
    _, state = through(history)[-1]
    aborted = advance(CANARY, "r1", state, facts(10_000, abort="stop it"))
    assert (aborted.state, aborted.weight) == (State.ABORTED, 0)
    good = facts(10_000 + later, calls=1000, abort="stop it")
    assert advance(CANARY, "r1", aborted, good) == aborted


@given(histories, st.integers(1, 5))
def test_a_new_leader_goes_on_where_the_old_one_was(history: list[Moment], every: int) -> None:
    assert through(history, restart_every=every) == through(history)


@given(histories, moments)
def test_looking_twice_changes_nothing(history: list[Moment], moment: Moment) -> None:
    _, state = through(history)[-1]
    known = known_at(moment, 10_000)
    once = advance(CANARY, "r1", state, known)
    nothing_new = replace(known, samples=Samples())
    again = advance(CANARY, "r1", once, nothing_new)
    assert (again.step, again.weight, again.state in OVER) == (once.step, once.weight, once.state in OVER)


@given(histories)
def test_another_spec_begins_from_nothing(history: list[Moment]) -> None:
    _, state = through(history)[-1]
    fresh = advance(
        CANARY, "r2", state, facts(10_000, promote=state.promote, abort=state.abort, blocked="wait")
    )
    assert (fresh.state, fresh.step, fresh.weight) == (State.WAITING, 0, 0)


ENDS = [
    pytest.param(facts(31, 20, 2), State.PROGRESSING, 25, "step 2", id="gates that hold after the pause"),
    pytest.param(
        facts(29, 99), State.PROGRESSING, 5, "step 1", id="gates that hold before the pause is over"
    ),
    pytest.param(facts(31, 19), State.PAUSED, 5, "fewer than 20 calls", id="one call too few"),
    pytest.param(facts(31), State.PAUSED, 5, "no call", id="no data"),
    pytest.param(
        facts(1, 20, 3), State.ROLLED_BACK, 0, "3 of 20 calls failed", id="too many errors, at once"
    ),
    pytest.param(facts(1, 19, 19), State.PROGRESSING, 5, "step 1", id="errors among too few calls"),
    pytest.param(facts(1, 20, 0, 201), State.ROLLED_BACK, 0, "201 ms on average", id="too slow"),
    pytest.param(facts(31, 20, 0, 200), State.PROGRESSING, 25, "step 2", id="as slow as it may be"),
    pytest.param(
        facts(1, 5, 5, breaker="open"), State.ROLLED_BACK, 0, "breaker is open", id="an open breaker"
    ),
    pytest.param(facts(1, breaker="open"), State.PROGRESSING, 5, "step 1", id="a breaker open from before"),
    pytest.param(
        facts(1, failed="its workload failed: x"), State.ROLLED_BACK, 0, "workload failed", id="crash"
    ),
    pytest.param(facts(31, 20, blocked="not ready"), State.PAUSED, 5, "not ready", id="a workload not ready"),
    pytest.param(facts(1, promote="step"), State.PROGRESSING, 25, "step 2", id="promoted by one step"),
    pytest.param(facts(1, promote="true"), State.PROMOTED, 100, "beamline.io/promote", id="promoted by hand"),
    pytest.param(facts(1, promote="false"), State.PROGRESSING, 5, "step 1", id="an annotation that says no"),
    pytest.param(
        facts(1, 20, 20, promote="step"), State.ROLLED_BACK, 0, "20 of 20", id="a step never beats a gate"
    ),
    pytest.param(
        facts(1, promote="y", abort="y"), State.ABORTED, 0, "beamline.io/abort", id="abort before promote"
    ),
    pytest.param(facts(-500, 99), State.PROGRESSING, 5, "step 1", id="a clock that went back"),
]


@pytest.mark.parametrize(("known", "state", "weight", "said"), ENDS)
def test_the_first_step_ends_with(known: Facts, state: State, weight: int, said: str) -> None:
    found = run(facts(0), known)
    assert (found.state, found.weight) == (state, weight)
    assert said in found.message.lower()


def test_all_steps_that_hold_end_in_promotion() -> None:
    steps = [facts(0), *(facts(31 * number, calls=20) for number in range(1, 4))]
    assert [run(*steps[:count]).weight for count in range(1, 5)] == [5, 25, 60, 100]


def test_a_paused_canary_goes_on_when_calls_come() -> None:
    assert run(facts(0), facts(60), facts(65, calls=20)).step == 2


def test_steps_that_were_taken_out_of_the_spec_are_not_waited_for() -> None:
    shorter = CANARY.model_copy(update={"steps": CANARY.steps[:1]})
    third = run(facts(0), facts(31, 20), facts(62, 20))
    assert third.step == 3
    assert advance(shorter, "r1", third, facts(63)).weight == 5


SHARES = [
    pytest.param([("a", 100, None), ("b", 0, 5)], {"a": 19, "b": 1}, id="one base, divided exactly"),
    pytest.param([("a", 7, None), ("b", 0, 100)], {"a": 0, "b": 100}, id="promoted"),
    pytest.param([("a", 7, None), ("b", 0, 0)], {"a": 7, "b": 0}, id="not begun"),
    pytest.param([("a", 0, None), ("b", 0, 5)], {"a": 0, "b": 1}, id="a base that takes nothing"),
    pytest.param(
        [("a", 100, None), ("b", 0, 100), ("c", 0, 50)], {"a": 0, "b": 1, "c": 1}, id="after another"
    ),
]


@pytest.mark.parametrize(("members", "weights"), SHARES)
def test_a_canary_takes_its_percent_from_the_others(members: list[Any], weights: dict[str, int]) -> None:
    assert divided([(i, w, None if p is None else CanaryStatus(weight=p)) for i, w, p in members]) == weights


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=5), st.integers(1, 99))
def test_rows_hold_the_percent_that_a_step_says(stated: list[int], percent: int) -> None:
    others = [(f"v{number}", weight, None) for number, weight in enumerate(stated)]
    weights = divided([*others, ("canary", 0, CanaryStatus(weight=percent))])
    assert all(0 <= weight <= MAX_WEIGHT for weight in weights.values())
    assert all((weights[name] > 0) == (weight > 0) for name, weight, _ in others)
    if sum(stated):
        assert weights["canary"] / sum(weights.values()) == pytest.approx(percent / 100, abs=0.01)


@pytest.mark.parametrize("found", [None, "x", {}, {"state": "Odd"}, {"state": "Paused", "step": "many"}])
def test_a_status_that_nobody_can_read_begins_from_nothing(found: Any) -> None:
    assert remembered({"canary": found}) is None


def test_an_upgrade_that_adds_a_field_with_a_default_is_no_other_spec() -> None:
    class Later(ExtensionSpec):
        """The next version's."""

        colour: str = "red"

    stated = {"type": "provider", "timeout_ms": 900, "workload": {"image": "x:1"}}
    now, later = ExtensionSpec.model_validate(stated), Later.model_validate(stated)
    assert revision_of(now) == revision_of(later)
    assert revision_of(later) != revision_of(Later.model_validate({**stated, "colour": "blue"}))
    assert revision_of(now) != revision_of(ExtensionSpec.model_validate({**stated, "timeout_ms": 901}))
