"""Whole requests against the rules by the book (:mod:`harness.rules_model`): any steps, replies and times,
one request after the other or several at once. Answer, error, trail, calls with their times, breakers,
budgets and places must be the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from beamline_router.core.ports import TransportFault
from beamline_router.core.request import Answer, Failure
from beamline_router.fakes import After, FakeClock
from harness.router_world import World, fails, request
from harness.rules_model import SILENT, Call, Entry, Extension, Rules, Said

ERRORS = [
    Said(fails("UNAVAILABLE"), None, "UNAVAILABLE", True, blame="bad"),
    Said(fails("UNAVAILABLE", retryable=False), None, "UNAVAILABLE", blame="bad"),
    Said(fails("UNAVAILABLE", retry_after_ms=70), None, "UNAVAILABLE", True, 0.07, "bad"),
    Said(fails("INTERNAL", retry_after_ms=1_500), None, "INTERNAL", True, 1.5, "bad"),
    Said(fails("RESOURCE_EXHAUSTED"), None, "RESOURCE_EXHAUSTED", True, blame="cooldown"),
    Said(fails("RESOURCE_EXHAUSTED", retry_after_ms=90), None, "RESOURCE_EXHAUSTED", True, 0.09, "cooldown"),
    Said(fails("INVALID_ARGUMENT"), None, "INVALID_ARGUMENT", blame="nobody"),
    Said(fails("CANCELLED"), None, "CANCELLED", blame="nobody"),
    Said(b"\xff", None, "INTERNAL", blame="bad"),
    Said(TransportFault.NO_RESPONDERS, None, "UNAVAILABLE", True, blame="bad"),
    Said(TransportFault.DISCONNECTED, None, "UNAVAILABLE", True, blame="nobody"),
    SILENT,
]
SENT_BACK = Said(
    fails("VALIDATION_REJECTED", retryable=True), None, "VALIDATION_REJECTED", True, blame="nobody"
)


def answers(*values: dict[str, Any]) -> list[Said]:
    return [Said(value, value) for value in values]


GOOD = {
    "pre": answers({}, {"prompt": "changed"}, {"parameters": {"a": 1}}, {"output": ""}, {"output": "canned"}),
    "validator": answers({"verdict": "pass"}, {"verdict": "pass"}, {"verdict": "reject"}),
    "provider": answers({"output": ""}, {"output": "said"}),
    "post": [*answers({}, {"output": "masked"}), SENT_BACK],
}
SECONDS = [0.0, 0.0, 0.013, 0.042, 0.11, 0.37, 1.9]
IDS = {
    "pre": ["pre", "pre_too"],
    "validator": ["check", "check_too", "check_three"],
    "provider": ["main", "second", "third"],
    "post": ["post", "post_too"],
}
KINDS = {name: kind for kind, names in IDS.items() for name in names}


@st.composite
def said(draw: st.DrawFn, /, kind: str) -> Said:
    """Times differ by nanoseconds from all others, so that no two things happen at once."""
    one = draw(st.sampled_from([*GOOD[kind], *GOOD[kind], *ERRORS]))
    seconds = draw(st.sampled_from(SECONDS))
    if one is SILENT or not seconds:
        return one
    seconds += draw(st.integers(1, 1_000_000)) * 1e-9
    return one._replace(reply=After(seconds, one.reply), after_s=seconds)


@st.composite
def extension(draw: st.DrawFn, /, kind: str) -> Extension:
    return Extension(
        kind,
        timeout_s=draw(st.sampled_from([0.1, 0.4, 2.0])),
        retry=draw(st.sampled_from([0, 1, 5])),
        threshold=draw(st.sampled_from([1, 2, 100])),
        recovery_s=draw(st.sampled_from([0.5, 20.0])),
        concurrency=draw(st.sampled_from([1, 2, 64])),
        said=draw(st.lists(said(kind), min_size=1, max_size=5)),
        enabled=draw(st.sampled_from([True] * 9 + [False])),
    )


@st.composite
def step(draw: st.DrawFn, /, kind: str, **more: Any) -> dict[str, Any]:
    one = {"action": f"extension_{kind}", "extension_id": draw(st.sampled_from(IDS[kind])), **more}
    mode = draw(st.sampled_from([None, None, "open", "closed", "fallback"]))
    if mode is not None:
        one["failure_mode"] = mode
    if mode == "fallback":
        one["fallback_id"] = draw(st.sampled_from(IDS[kind]))
    if draw(st.booleans()):
        over = {"timeout_ms": [50, 700], "retry": [0, 2], "concurrency": [1]}
        name = draw(st.sampled_from(sorted(over)))
        one[name] = draw(st.sampled_from(over[name]))
    return one


grouped = st.sampled_from([{}, {}, {"group": "g"}, {"group": "h"}])
steps = st.tuples(
    st.lists(step("pre") | grouped.flatmap(lambda group: step("validator", **group)), max_size=4),
    st.lists(step("validator", overlap=True), max_size=2),
    st.lists(st.sampled_from(IDS["provider"]), min_size=1, max_size=3, unique=True),
    st.lists(st.sampled_from(IDS["provider"]), max_size=3, unique=True),
    st.lists(step("post"), max_size=2),
).map(
    lambda parts: [
        *parts[0],
        *parts[1],
        {
            "action": "select_provider",
            "providers": [{"provider_id": name} for name in parts[2]],
            "fallback": parts[3],
        },
        *parts[4],
    ]
)
requests = st.lists(
    st.tuples(st.sampled_from([0.0, 0.02, 0.3, 1.1, 30.0]), st.sampled_from([600.0, 600.0, 2.0, 0.2, 0.011])),
    min_size=1,
    max_size=6,
)


def world_of(extensions: dict[str, Extension], steps: list[dict[str, Any]], deadline_s: float) -> World:
    world = World()
    for name, one in extensions.items():
        world.have(
            name,
            one.kind,
            enabled=one.enabled,
            timeout_ms=round(one.timeout_s * 1000),
            retry=one.retry,
            concurrency=one.concurrency,
            circuitBreaker={
                "failureThreshold": one.threshold,
                "minFailureRatio": 0,
                "monitoringPeriodMs": 600_000,
                "recoveryTimeoutMs": round(one.recovery_s * 1000),
                "slowCall": {"minCalls": 1_000},
            },
        )
        world.answers(name, *(one.reply for one in one.said))
    world.route(*steps, deadline_ms=round(deadline_s * 1000))
    return world


async def all_of(
    clock: FakeClock,
    asked: list[tuple[float, float]],
    at_once: bool,
    ask: Callable[[str, float], Awaitable[Any]],
) -> list[Any]:
    async def at(number: int, pause: float, left_s: float) -> Any:
        await clock.wait(pause)
        return await ask(f"prompt {number}", left_s)

    async def everything() -> list[Any]:
        if not at_once:
            return [await at(number, *one) for number, one in enumerate(asked)]
        pauses = [(sum(one[0] for one in asked[: number + 1]), one[1]) for number, one in enumerate(asked)]
        return await asyncio.gather(*(at(number, *one) for number, one in enumerate(pauses)))

    return await clock.drive(everything())


def told(result: Answer | Failure) -> tuple[Any, ...]:
    trail = [
        Entry(e.extension_id, e.outcome, e.attempts, e.reason, e.breaker, e.why, round(e.ms, 3))
        for e in result.trail
    ]
    if isinstance(result, Answer):
        return result.provider_id, result.output, trail
    error = result.error
    return error.code.value, error.step, error.extension_id, error.attempts, trail


@settings(max_examples=120)
@given(
    table=st.fixed_dictionaries({name: extension(kind) for name, kind in KINDS.items()}),
    steps=steps,
    deadline_s=st.sampled_from([600.0, 600.0, 1.0]),
    asked=requests,
    at_once=st.booleans(),
)
async def test_a_request_fares_as_the_rules_say(
    table: dict[str, Extension],
    steps: list[dict[str, Any]],
    deadline_s: float,
    asked: list[tuple[float, float]],
    at_once: bool,
) -> None:
    world, rules = world_of(table, steps, deadline_s), Rules(table, steps, deadline_s)

    async def real(prompt: str, left_s: float) -> Answer | Failure:
        one = request(prompt=prompt, request_id=prompt, deadline=world.clock.now + left_s)
        return await world.pipeline.run(one, world.snapshot)

    results = await all_of(world.clock, asked, at_once, real)
    for result, one in zip(results, await all_of(rules.clock, asked, at_once, rules.request), strict=True):
        error = one.error
        if error is None:
            assert told(result) == (one.provider_id, one.output, one.trail)
        elif error.step:
            assert told(result) == (error.code, error.step, error.extension_id, error.attempts, one.trail)
        else:
            assert told(result) == (error.code, None, None, None, one.trail)
    sent = [
        Call(
            one.at,
            one.subject.removeprefix("test."),
            int(one.headers["Beamline-Attempt"]),
            one.timeout_s,
            (one.body["prompt"], one.body["parameters"], one.body.get("output")),
        )
        for one in world.transport.sent
    ]
    assert sent == rules.calls
    for name, state in world.runtime.breaker_states().items():
        assert state == rules.breakers[name].state, name
        assert world.runtime.load(name).budget.tokens == round(rules.tokens[name], 3)
    assert world.runtime.in_flight() == {}
    assert len(asyncio.all_tasks()) == 1
