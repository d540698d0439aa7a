"""Validators, failure modes and shadow steps."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest
from structlog.testing import capture_logs

from beamline_contract.errors import ErrorCode
from beamline_router.core.ports import TransportFault
from beamline_router.core.steps import MAX_SHADOWS
from beamline_router.fakes import After
from harness.router_world import (
    PASS,
    REJECT,
    World,
    check,
    fails,
    post,
    pre,
    provider,
    request,
)

NO_RESPONDERS = TransportFault.NO_RESPONDERS
TIMED_OUT = TransportFault.TIMED_OUT


async def test_a_rejection_ends_the_request_before_the_provider(world: World) -> None:
    world.answers("check", REJECT)
    world.route(check(), provider(), post())
    failure = await world.failure()
    assert world.order() == ["check"]
    error = failure.error
    assert (error.code, error.message, error.details) == (
        ErrorCode.VALIDATION_REJECTED,
        "a card number",
        {"found": ["credit_card"]},
    )
    assert (error.step, error.extension_id, error.attempts, error.request_id) == (
        "check",
        "check",
        1,
        "req-1",
    )
    assert failure.trail[-1].outcome == "rejected"
    assert world.recorder.steps == [("check", "validator", "rejected", "VALIDATION_REJECTED")]


async def test_a_rejection_is_not_softened_by_failure_mode_open(world: World) -> None:
    world.answers("check", REJECT)
    world.route(check(failure_mode="open"), provider())
    assert (await world.failure()).error.code is ErrorCode.VALIDATION_REJECTED
    assert world.calls("main") == 0


async def test_a_rejection_asks_no_fallback(world: World) -> None:
    world.have("other", "validator")
    world.answers("other", PASS)
    world.answers("check", REJECT)
    world.route(check(failure_mode="fallback", fallback_id="other"), provider())
    assert (await world.failure()).error.code is ErrorCode.VALIDATION_REJECTED
    assert world.calls("other") == 0


async def test_validators_of_one_group_run_side_by_side(world: World) -> None:
    world.have("second_check", "validator")
    for name in ("check", "second_check"):
        world.answers(name, After(0.5, PASS))
    world.route(check(group="g"), check("second_check", group="g"), provider())
    began = world.clock.now
    await world.answer()
    first, second, main = world.transport.sent
    assert (first.at, second.at, main.at) == (began, began, began + 0.5)


async def test_validators_without_a_group_run_one_after_the_other(world: World) -> None:
    world.have("second_check", "validator")
    for name in ("check", "second_check"):
        world.answers(name, After(0.5, PASS))
    world.route(check(), check("second_check"), provider())
    began = world.clock.now
    await world.answer()
    assert [sent.at - began for sent in world.transport.sent] == [0, 0.5, 1.0]


async def test_one_rejection_in_a_group_ends_the_others_at_once(world: World) -> None:
    world.have("slow_check", "validator")
    world.answers("slow_check", After(0.9, PASS))
    world.answers("check", After(0.1, REJECT))
    world.route(check("slow_check", group="g"), check(group="g"), provider())
    began = world.clock.now
    assert (await world.failure()).error.code is ErrorCode.VALIDATION_REJECTED
    assert world.clock.now - began == pytest.approx(0.1)
    assert world.transport.cancelled == ["test.slow_check"]
    assert world.calls("main") == 0


async def test_of_two_rejections_at_once_the_first_listed_speaks(world: World) -> None:
    world.have("other", "validator")
    world.answers("other", REJECT)
    world.answers("check", REJECT)
    world.route(check("other", group="g"), check(group="g"), provider())
    assert (await world.failure()).error.extension_id == "other"


@pytest.mark.parametrize(
    ("first", "told"),
    [
        pytest.param(REJECT, ["ValueError"], id="a rejection"),
        pytest.param(TypeError("secret content"), ["ValueError", "TypeError"], id="another fault"),
    ],
)
async def test_a_fault_of_our_own_beside_what_ended_the_request_is_logged_by_its_type_alone(
    world: World, first: Any, told: list[str]
) -> None:
    world.have("other", "validator")
    world.answers("check", first)
    world.answers("other", ValueError("secret content"))
    world.route(check(group="g"), check("other", group="g"), provider())
    unheard: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: unheard.append(context))
    with capture_logs() as lines:
        await world.failure()
    gc.collect()
    assert [(line["event"], line["type"]) for line in lines] == [("pipeline.fault", name) for name in told]
    assert "secret" not in str(lines)
    assert unheard == []


FAILURES = [
    pytest.param(TIMED_OUT, id="it does not answer in time"),
    pytest.param(NO_RESPONDERS, id="nobody listens"),
    pytest.param(TransportFault.DISCONNECTED, id="the router is not connected"),
    pytest.param(b"not json", id="its reply is malformed"),
    pytest.param(b'{"a": "' + b"x" * 1024 * 1024 + b'"}', id="its reply is too large"),
    pytest.param(fails("INTERNAL"), id="it answers with an error"),
    pytest.param(fails("INVALID_ARGUMENT"), id="it blames the request"),
]


@pytest.mark.parametrize("reply", FAILURES)
async def test_a_pre_step_is_skipped_by_default_when(world: World, reply: Any) -> None:
    world.answers("pre", reply)
    world.route(pre(), provider())
    answer = await world.answer()
    assert answer.trail[0].outcome == "skipped"
    assert answer.trail[0].reason is not None
    assert world.recorder.steps[0][2] == "skipped"


@pytest.mark.parametrize("reply", FAILURES)
async def test_a_validator_ends_the_request_by_default_when(world: World, reply: Any) -> None:
    world.answers("check", reply)
    world.route(check(), provider())
    failure = await world.failure()
    assert failure.error.step == "check"
    assert world.calls("main") == 0


@pytest.mark.parametrize("reply", FAILURES)
async def test_a_post_step_is_skipped_by_default_when(world: World, reply: Any) -> None:
    world.answers("post", reply)
    world.route(provider(), post())
    answer = await world.answer()
    assert (answer.output, answer.trail[-1].outcome) == ("main", "skipped")


@pytest.mark.parametrize("step", [pre, post])
async def test_a_step_that_is_closed_ends_the_request(world: World, step: Any) -> None:
    name = step()["extension_id"]
    world.answers(name, fails("INTERNAL"))
    before, after = (
        ([step(failure_mode="closed")], []) if step is pre else ([], [step(failure_mode="closed")])
    )
    world.route(*before, provider(), *after)
    failure = await world.failure()
    assert (failure.error.code, failure.error.step) == (ErrorCode.INTERNAL, name)


async def test_a_validator_that_is_open_is_skipped(world: World) -> None:
    world.answers("check", fails("INTERNAL"))
    world.route(check(failure_mode="open"), provider())
    assert (await world.answer()).trail[0].outcome == "skipped"


@pytest.mark.parametrize("where", ["step", "extension"])
async def test_with_fallback_the_other_extension_is_asked(world: World, where: str) -> None:
    world.have("other", "validator")
    world.answers("other", PASS)
    world.answers("check", fails("INTERNAL"))
    if where == "extension":
        world.have("check", "validator", failureMode="fallback", fallbackRef={"name": "other"})
        world.route(check(), provider())
    else:
        world.route(check(failure_mode="fallback", fallback_id="other"), provider())
    answer = await world.answer()
    assert [(e.extension_id, e.outcome) for e in answer.trail[:2]] == [("check", "error"), ("other", "ok")]


@pytest.mark.parametrize(
    ("step", "ends"),
    [
        pytest.param(check, True, id="a validator ends the request"),
        pytest.param(pre, False, id="a pre step is skipped"),
    ],
)
async def test_when_the_fallback_fails_too(world: World, step: Any, ends: bool) -> None:
    name = step()["extension_id"]
    world.have("other", "validator" if step is check else "pre")
    world.answers("other", fails("INTERNAL"))
    world.answers(name, fails("INTERNAL"))
    world.route(step(failure_mode="fallback", fallback_id="other"), provider())
    if ends:
        assert (await world.failure()).error.extension_id == "other"
    else:
        assert [e.outcome for e in (await world.answer()).trail] == ["error", "skipped", "ok"]


@pytest.mark.parametrize("mode", ["open", "closed"])
@pytest.mark.parametrize("how", ["unknown", "disabled", "of another type"])
async def test_a_step_that_names_nobody_gets_not_found(world: World, how: str, mode: str) -> None:
    if how == "unknown":
        world.lack("pre")
    elif how == "disabled":
        world.have("pre", "pre", enabled=False)
    else:
        world.have("pre", "post")
    world.route(pre(failure_mode=mode), provider())
    if mode == "open":
        assert (await world.answer()).trail[0].reason == "NOT_FOUND"
    else:
        assert (await world.failure()).error.code is ErrorCode.NOT_FOUND
    assert world.calls("pre") == 0


async def test_a_shadow_validator_that_rejects_changes_nothing(world: World) -> None:
    world.answers("check", REJECT)
    world.route(check(mode="shadow"), provider())
    answer = await world.answer()
    await world.clock.settle()
    assert answer.trail[0].outcome == "shadow"
    assert ("check", "validator", "rejected", "VALIDATION_REJECTED") in world.recorder.steps


async def test_a_shadow_step_never_delays_the_answer(world: World) -> None:
    world.answers("pre", After(0.9, {"prompt": "changed"}))
    world.route(pre(mode="shadow"), provider())
    began = world.clock.now
    await world.answer()
    assert world.clock.now == began
    assert world.transport.calls("test.main")[0].body["prompt"] == "Hi"
    await world.clock.advance(1)
    assert ("pre", "pre", "ok", None) in world.recorder.steps


async def test_a_shadow_step_in_a_group_does_not_hold_the_group_up(world: World) -> None:
    world.have("watcher", "validator")
    world.answers("watcher", After(0.9, REJECT))
    world.route(check(group="g"), check("watcher", group="g", mode="shadow"), provider())
    began = world.clock.now
    await world.answer()
    assert world.clock.now == began
    await world.pipeline.close()


async def test_a_shadow_post_step_sees_the_answer_and_does_not_change_it(world: World) -> None:
    world.answers("post", {"output": "changed"})
    world.route(provider(), post(mode="shadow"))
    assert (await world.answer()).output == "main"
    await world.clock.settle()
    assert world.transport.calls("test.post")[0].body["output"] == "main"


async def test_a_shadow_step_that_breaks_the_transport_hurts_nobody(world: World) -> None:
    world.answers("pre", ValueError("broken"))
    world.route(pre(mode="shadow"), provider())
    await world.answer()
    await world.clock.settle()
    assert ("pre", "pre", "error", "INTERNAL") in world.recorder.steps


async def test_what_a_shadow_step_breaks_or_fills_is_its_own(world: World) -> None:
    world.have("check", "validator", concurrency=1, retry=1)
    bad = {"mode": "shadow", "config": {"new": True}}
    world.route(check(**bad), check(), provider())
    world.answers(
        "check", lambda sent: After(0.9, fails("UNAVAILABLE")) if sent.body["config"].get("new") else PASS
    )
    for _ in range(8):
        for _ in range(2):  # the second one comes while the first one's shadow holds its place
            assert (await world.answer()).trail[-2].outcome == "ok"
            await world.clock.advance(0.1)
        await world.clock.advance(2)
    shadow, own = world.snapshot.policy("only").route.before  # type: ignore[union-attr]
    assert world.runtime.breaker_states() == {"check": "closed", "check@only/0": "open", "main": "closed"}
    assert world.runtime.budget(own[0].call).tokens == 10.0
    assert world.runtime.budget(shadow[0].call).tokens < 10.0
    assert world.runtime.in_flight() == {}
    world.route(provider())
    assert world.runtime.breaker_states() == {"check": "closed", "main": "closed"}


async def test_an_isolated_extension_is_not_called_by_a_shadow_step_either(world: World) -> None:
    world.route(check(mode="shadow"), provider())
    found = world.snapshot.lookup("check")
    assert found is not None
    world.runtime.isolate(found)
    await world.answer()
    await world.clock.settle()
    assert world.calls("check") == 0


async def test_beyond_a_thousand_shadow_steps_at_work_more_are_dropped_and_counted(world: World) -> None:
    world.have("pre", "pre", concurrency=100_000)
    world.answers("pre", After(0.9, {}))
    world.route(pre(mode="shadow"), provider())
    for _ in range(MAX_SHADOWS + 2):
        await world.pipeline.run(request(), world.snapshot)
    assert world.recorder.drops == [("pre", "shadow")] * 2
    await world.pipeline.close()


async def test_closing_the_pipeline_ends_shadow_steps(world: World) -> None:
    world.answers("pre", After(0.9, {}))
    world.route(pre(mode="shadow"), provider())
    await world.answer()
    await world.pipeline.close()
    assert world.transport.cancelled == ["test.pre"]
