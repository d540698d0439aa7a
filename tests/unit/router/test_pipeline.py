"""The rules of the pipeline, one claim each."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from beamline_contract.errors import ErrorCode
from beamline_router.core.ports import TransportFault
from beamline_router.fakes import After, FakeRng
from harness.router_world import (
    PASS,
    REJECT,
    World,
    check,
    fails,
    post,
    pre,
    provider,
    providers,
    request,
    says,
)

NO_RESPONDERS = TransportFault.NO_RESPONDERS
TIMED_OUT = TransportFault.TIMED_OUT


async def test_steps_run_in_the_listed_order(world: World) -> None:
    world.route(pre(), check(), provider(), post())
    answer = await world.answer()
    assert world.order() == ["pre", "check", "main", "post"]
    assert [(entry.extension_id, entry.outcome) for entry in answer.trail] == [
        ("pre", "ok"),
        ("check", "ok"),
        ("main", "ok"),
        ("post", "ok"),
    ]


async def test_a_pre_step_and_a_validator_may_stand_in_any_order(world: World) -> None:
    world.route(check(), pre(), provider())
    await world.answer()
    assert world.order() == ["check", "pre", "main"]


async def test_an_extension_gets_exactly_the_message_of_the_wire_contract(world: World) -> None:
    world.have("main", "provider", config={"model": "m", "temperature": 0})
    world.route(provider(config={"model": "n"}))
    await world.answer(parameters={"temperature": 0}, context={"lang": "en"}, trace_id="a" * 32)
    assert world.transport.sent[0].body == {
        "trace_id": "a" * 32,
        "request_id": "req-1",
        "tenant_id": "acme",
        "extension_id": "main",
        "provider_id": "main",
        "prompt": "Hi",
        "parameters": {"temperature": 0},
        "config": {"model": "n", "temperature": 0},
        "context": {"lang": "en"},
    }


async def test_messages_are_sent_instead_of_a_prompt(world: World) -> None:
    world.route(provider())
    await world.answer(prompt=None, messages=[{"role": "user", "content": "Hi"}])
    body = world.transport.sent[0].body
    assert body["messages"] == [{"role": "user", "content": "Hi"}]
    assert "prompt" not in body


async def test_a_pre_steps_patch_reaches_the_provider(world: World) -> None:
    world.answers("pre", {"prompt": "hi", "context": {"b": 2}, "parameters": {"max_tokens": 5}})
    world.route(pre(), provider())
    await world.answer(context={"a": 1}, parameters={"temperature": 0})
    body = world.transport.calls("test.main")[0].body
    assert body["prompt"] == "hi"
    assert body["context"] == {"a": 1, "b": 2}
    assert body["parameters"] == {"temperature": 0, "max_tokens": 5}


async def test_a_post_step_gets_the_answer_and_changes_it(world: World) -> None:
    world.answers("post", {"output": "masked", "metadata": {"masked": 1}})
    world.route(provider(), post())
    answer = await world.answer()
    body = world.transport.calls("test.post")[0].body
    assert (body["output"], body["prompt"]) == ("main", "Hi")
    assert body["usage"] == {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    assert answer.output == "masked"
    assert answer.metadata["masked"] == 1


async def test_an_answer_always_has_its_four_metadata_fields(world: World) -> None:
    world.answers(
        "main", After(0.25, {**says(), "metadata": {"model": 7, "latency_ms": True, "trace_id": "x"}})
    )
    world.route(provider())
    answer = await world.answer(model="gpt-4", trace_id="a" * 32)
    assert answer.metadata == {
        "model": "gpt-4",
        "finish_reason": "stop",
        "latency_ms": 250.0,
        "trace_id": "a" * 32,
    }


async def test_a_request_that_no_policy_takes_is_not_found(world: World) -> None:
    failure = await world.failure()
    assert (failure.error.code, failure.error.request_id) == (ErrorCode.NOT_FOUND, "req-1")


# --- validators


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


# --- failure modes

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


# --- short circuit


async def test_a_pre_step_that_answers_leaves_out_the_provider_but_not_the_post_steps(world: World) -> None:
    world.have("later", "pre")
    world.answers("pre", {"output": "from the cache"})
    world.route(pre(), pre("later"), check(), provider(), post())
    answer = await world.answer()
    assert world.order() == ["pre", "post"]
    assert (answer.output, answer.provider_id) == ("from the cache", "pre")
    assert answer.usage["total_tokens"] == 0


async def test_an_empty_text_is_an_answer_too(world: World) -> None:
    world.answers("pre", {"output": ""})
    world.route(pre(), provider())
    assert (await world.answer()).output == ""
    assert world.calls("main") == 0


# --- shadow


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


async def test_closing_the_pipeline_ends_shadow_steps(world: World) -> None:
    world.answers("pre", After(0.9, {}))
    world.route(pre(mode="shadow"), provider())
    await world.answer()
    await world.pipeline.close()
    assert world.transport.cancelled == ["test.pre"]


# --- deadlines


async def test_an_attempt_gets_its_own_timeout_when_there_is_time(world: World) -> None:
    world.route(provider())
    await world.answer(deadline=world.clock.now + 60)
    assert world.transport.sent[0].timeout_s == 1.0


async def test_an_attempt_gets_what_remains_less_ten_milliseconds_when_time_is_short(world: World) -> None:
    world.route(provider())
    await world.answer(deadline=world.clock.now + 0.5)
    sent = world.transport.sent[0]
    assert sent.timeout_s == pytest.approx(0.49)
    assert sent.headers["Beamline-Deadline-Ms"] in {"489", "490"}
    assert int(sent.headers["Beamline-Deadline-At"]) == pytest.approx(
        (world.clock.wall() + 0.49) * 1000, abs=2
    )


async def test_every_hop_subtracts_what_the_ones_before_took(world: World) -> None:
    world.answers("pre", After(0.3, {}))
    world.route(pre(), provider())
    await world.answer(deadline=world.clock.now + 1)
    assert world.transport.sent[1].timeout_s == pytest.approx(0.69)


async def test_the_policys_deadline_holds_where_the_caller_asks_for_more(world: World) -> None:
    world.route(provider(), deadline_ms=500)
    await world.answer(deadline=world.clock.now + 60)
    assert world.transport.sent[0].timeout_s == pytest.approx(0.49)


async def test_the_deadline_ends_the_request_whatever_timeouts_and_retries_would_allow(world: World) -> None:
    world.have("check", "validator", retry=5)
    world.answers("check", TIMED_OUT)
    world.route(check(), provider(), deadline_ms=2_500)
    began = world.clock.now
    failure = await world.failure()
    assert failure.error.code is ErrorCode.DEADLINE_EXCEEDED
    assert world.clock.now - began <= 2.5
    assert world.calls("main") == 0


async def test_no_call_is_begun_once_the_time_is_over(world: World) -> None:
    world.route(pre(), provider())
    failure = await world.failure(deadline=world.clock.now + 0.01)
    assert failure.error.code is ErrorCode.DEADLINE_EXCEEDED
    assert world.transport.sent == []


async def test_a_fallback_gets_no_more_time_than_the_request_has(world: World) -> None:
    world.answers("main", TIMED_OUT)
    world.answers("second", TIMED_OUT)
    world.route(provider(fallback=["second", "third"]), deadline_ms=1_500)
    began = world.clock.now
    assert (await world.failure()).error.code is ErrorCode.DEADLINE_EXCEEDED
    assert world.clock.now - began <= 1.5
    assert world.calls("third") == 0


# --- retry


async def test_a_retryable_error_is_tried_again(world: World) -> None:
    world.have("main", "provider", retry=2)
    world.answers("main", fails("UNAVAILABLE"), fails("UNAVAILABLE"), says())
    world.route(provider())
    answer = await world.answer()
    assert [sent.headers["Beamline-Attempt"] for sent in world.transport.sent] == ["1", "2", "3"]
    assert answer.trail[0].attempts == 3
    assert len(world.clock.slept) == 2


async def test_retry_counts_extra_attempts(world: World) -> None:
    world.have("main", "provider", retry=1)
    world.answers("main", fails("UNAVAILABLE"))
    world.route(provider())
    failure = await world.failure()
    assert (world.calls("main"), failure.error.attempts) == (2, 2)


@pytest.mark.parametrize("code", ["INVALID_ARGUMENT", "PERMISSION_DENIED", "NOT_FOUND", "RESOURCE_EXHAUSTED"])
async def test_these_errors_are_not_retried_in_place(world: World, code: str) -> None:
    world.have("main", "provider", retry=5)
    world.answers("main", fails(code))
    world.route(provider())
    await world.failure()
    assert world.calls("main") == 1


async def test_an_error_that_says_not_retryable_is_not_retried(world: World) -> None:
    world.have("main", "provider", retry=5)
    world.answers("main", fails("UNAVAILABLE", retryable=False))
    world.route(provider())
    await world.failure()
    assert world.calls("main") == 1


@pytest.mark.parametrize(
    ("kind", "stated", "calls"),
    [
        pytest.param("provider", None, 1, id="a provider is not retried after a timeout"),
        pytest.param("provider", True, 2, id="a provider with retryOnTimeout is"),
        pytest.param("validator", None, 2, id="a validator is"),
        pytest.param("validator", False, 1, id="a validator without retryOnTimeout is not"),
    ],
)
async def test_retry_after_a_timeout(world: World, kind: str, stated: bool | None, calls: int) -> None:
    name = "main" if kind == "provider" else "check"
    world.have(name, kind, retry=1, **({} if stated is None else {"retryOnTimeout": stated}))
    world.answers(name, TIMED_OUT)
    world.route(check(), provider())
    await world.failure()
    assert world.calls(name) == calls


async def test_a_pause_that_would_leave_no_time_is_not_begun(world: World) -> None:
    world.rng = FakeRng(0.999)
    world.__post_init__()
    world.have("main", "provider", retry=5)
    world.answers("main", After(0.45, fails("UNAVAILABLE")))
    world.route(provider())
    began = world.clock.now
    await world.failure(deadline=began + 0.475)
    assert world.calls("main") == 1
    assert world.clock.now == began + 0.45


async def test_the_retry_budget_ends_retries_in_an_outage(world: World) -> None:
    world.have("main", "provider", retry=1, circuitBreaker={"failureThreshold": 10_000})
    world.answers("main", fails("UNAVAILABLE"))
    world.route(provider())
    for _ in range(100):
        await world.failure()
    assert world.calls("main") <= 120


async def test_a_step_overrides_timeout_and_retry_of_its_extension(world: World) -> None:
    world.answers("check", fails("UNAVAILABLE"))
    world.route(check(timeout_ms=50, retry=3), provider())
    await world.failure()
    assert [sent.timeout_s for sent in world.transport.sent] == [0.05] * 4


# --- fallback

FALLS_BACK = [
    pytest.param(NO_RESPONDERS, id="nobody listens"),
    pytest.param(TransportFault.DISCONNECTED, id="the router is not connected"),
    pytest.param(TIMED_OUT, id="it timed out"),
    pytest.param(fails("RESOURCE_EXHAUSTED"), id="it answers 429"),
    pytest.param(fails("UNAVAILABLE"), id="it is unavailable"),
    pytest.param(fails("INTERNAL"), id="it has a fault"),
    pytest.param(fails("provider_error"), id="it answers a foreign provider_error"),
    pytest.param(b"[]", id="its reply is malformed"),
]


@pytest.mark.parametrize("reply", FALLS_BACK)
async def test_the_fallback_is_asked_when(world: World, reply: Any) -> None:
    world.answers("main", reply)
    world.route(provider(fallback=["second"]))
    answer = await world.answer()
    assert answer.provider_id == "second"
    assert [(e.extension_id, e.outcome) for e in answer.trail] == [("main", "error"), ("second", "ok")]


@pytest.mark.parametrize("how", ["unknown", "disabled"])
async def test_the_fallback_is_asked_for_a_provider_that_is(world: World, how: str) -> None:
    if how == "unknown":
        world.lack("main")
    else:
        world.have("main", "provider", enabled=False)
    world.route(provider(fallback=["second"]))
    assert (await world.answer()).provider_id == "second"


@pytest.mark.parametrize(
    "code", ["INVALID_ARGUMENT", "UNAUTHENTICATED", "PERMISSION_DENIED", "NOT_FOUND", "CANCELLED"]
)
async def test_no_fallback_is_asked_after_a_fault_of_the_caller(world: World, code: str) -> None:
    world.answers("main", fails(code))
    world.route(provider(fallback=["second"]))
    assert (await world.failure()).error.code == code
    assert world.calls("second") == 0


async def test_no_fallback_is_asked_after_a_timeout_where_a_second_call_is_forbidden(world: World) -> None:
    world.have("main", "provider", retryOnTimeout=False)
    world.answers("main", TIMED_OUT)
    world.route(provider(fallback=["second"]))
    assert (await world.failure()).error.code is ErrorCode.DEADLINE_EXCEEDED
    assert world.calls("second") == 0


async def test_the_fallback_list_is_asked_in_order(world: World) -> None:
    world.answers("main", NO_RESPONDERS)
    world.answers("second", NO_RESPONDERS)
    world.route(provider(fallback=["second", "third"]))
    assert (await world.answer()).provider_id == "third"
    assert world.order() == ["main", "second", "third"]


async def test_the_policys_fallback_is_used_where_the_step_has_none(world: World) -> None:
    world.answers("main", NO_RESPONDERS)
    world.route(provider(), fallback=["third"])
    assert (await world.answer()).provider_id == "third"


async def test_the_steps_fallback_replaces_the_policys(world: World) -> None:
    world.answers("main", NO_RESPONDERS)
    world.route(provider(fallback=["second"]), fallback=["third"])
    assert (await world.answer()).provider_id == "second"


async def test_ordered_providers_are_asked_one_after_the_other(world: World) -> None:
    world.answers("main", NO_RESPONDERS)
    world.route(providers({"main": 1, "second": 1}, strategy="ordered", fallback=["third", "main"]))
    assert (await world.answer()).provider_id == "second"
    assert world.order() == ["main", "second"]


async def test_a_weighted_choice_is_followed_by_the_fallback_and_not_by_its_siblings(world: World) -> None:
    world.answers("main", NO_RESPONDERS)
    world.route(providers({"main": 90, "second": 10}, fallback=["third"]))
    assert (await world.answer()).provider_id == "third"


async def test_a_request_makes_at_most_six_provider_attempts(world: World) -> None:
    for name in ("main", "second", "third"):
        world.have(name, "provider", retry=3)
        world.answers(name, fails("UNAVAILABLE"))
    world.route(provider(fallback=["second", "third"]))
    failure = await world.failure()
    assert len(world.transport.sent) == 6
    assert failure.error.attempts == 6


# --- what the breaker, the bulkhead and a cooldown refuse


async def open_breaker(world: World, name: str = "main", failures: int = 5) -> None:
    """Fails one extension until its breaker is open."""
    world.answers(name, fails("INTERNAL", retryable=False))
    for _ in range(failures):
        await world.failure(policy="only")
    assert world.runtime.breaker_states()[name] == "open"


async def test_five_failures_open_the_breaker_and_a_validator_then_fails_without_a_call(world: World) -> None:
    world.route(check(), provider())
    await open_breaker(world, "check")
    failure = await world.failure()
    assert world.calls("check") == 5
    assert failure.error.code is ErrorCode.UNAVAILABLE
    assert failure.error.retry_after_ms == 30_000
    assert failure.trail[-1].breaker == "open"
    assert world.recorder.breakers == [("check", "open")]


async def test_an_open_breaker_leads_to_the_fallback(world: World) -> None:
    world.route(provider())
    await open_breaker(world)
    world.route(provider(fallback=["second"]))
    assert (await world.answer()).provider_id == "second"
    assert world.calls("main") == 5


async def test_the_breaker_lets_a_probe_through_when_its_time_is_over_and_closes_after_three(
    world: World,
) -> None:
    world.route(check(), provider())
    await open_breaker(world, "check")
    world.answers("check", PASS)
    await world.clock.advance(30)
    for expected in ("half-open", "half-open", "closed"):
        await world.answer()
        assert world.runtime.breaker_states()["check"] == expected


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(fails("INVALID_ARGUMENT"), id="the request is at fault"),
        pytest.param(fails("NOT_FOUND"), id="the model is unknown"),
        pytest.param(TransportFault.DISCONNECTED, id="the router is not connected"),
        pytest.param(TransportFault.TOO_LARGE, id="the message is too large"),
    ],
)
async def test_a_breaker_is_untouched_when(world: World, reply: Any) -> None:
    world.answers("check", reply)
    world.route(check(), provider())
    for _ in range(20):
        await world.failure()
    assert world.runtime.breaker_states()["check"] == "closed"
    assert not any(failed for _, failed, _ in world.recorder.attempts)


async def test_a_timeout_that_the_requests_deadline_caused_does_not_count(world: World) -> None:
    world.answers("check", TIMED_OUT)
    world.route(check(), provider())
    for _ in range(20):
        await world.failure(deadline=world.clock.now + 0.2)
    assert world.runtime.breaker_states()["check"] == "closed"


@pytest.mark.parametrize(
    "reply", [TIMED_OUT, NO_RESPONDERS, b"\xff", fails("INTERNAL"), {"verdict": "maybe"}]
)
async def test_these_failures_count_for_the_breaker(world: World, reply: Any) -> None:
    world.answers("check", reply)
    world.route(check(), provider())
    for _ in range(5):
        await world.failure()
    assert world.runtime.breaker_states()["check"] == "open"


async def test_slow_answers_open_the_breaker(world: World) -> None:
    world.answers("check", After(0.85, PASS))
    world.route(check(), provider())
    for _ in range(10):
        await world.answer()
    assert world.runtime.breaker_states()["check"] == "open"


async def test_a_429_is_a_cooldown_and_not_a_failure(world: World) -> None:
    world.answers("check", fails("RESOURCE_EXHAUSTED", retry_after_ms=2_000), PASS)
    world.route(check(), provider())
    assert (await world.failure()).error.code is ErrorCode.RESOURCE_EXHAUSTED
    failure = await world.failure()
    assert (failure.error.code, failure.error.retry_after_ms) == (ErrorCode.RESOURCE_EXHAUSTED, 2_000)
    assert world.calls("check") == 1
    assert world.runtime.breaker_states()["check"] == "closed"
    await world.clock.advance(2)
    await world.answer()


async def test_when_all_are_open_the_one_that_reopens_first_gets_one_trial(world: World) -> None:
    world.have("second", "provider", circuitBreaker={"recoveryTimeoutMs": 5_000})
    world.route(provider())
    await open_breaker(world)
    world.route(provider("second"))
    await open_breaker(world, "second")
    world.answers("main", says("main"))
    world.answers("second", says("second"))
    world.route(provider(fallback=["second"]))
    before = len(world.transport.sent)
    answer = await world.answer()
    assert answer.provider_id == "second"
    assert len(world.transport.sent) == before + 1


async def test_a_trial_that_fails_makes_no_second_one_and_keeps_the_breaker_open(world: World) -> None:
    world.route(provider())
    await open_breaker(world)
    before = world.calls("main")
    await world.failure()
    assert world.calls("main") == before + 1
    assert world.runtime.breaker_states()["main"] == "open"


async def test_an_isolated_provider_gets_no_trial_until_reset(world: World) -> None:
    world.route(provider())
    main = world.snapshot.lookup("main")
    assert main is not None
    world.runtime.isolate(main)
    assert (await world.failure()).error.code is ErrorCode.UNAVAILABLE
    assert world.calls("main") == 0
    assert world.runtime.breaker_states() == {"main": "isolated"}
    world.runtime.reset(main)
    await world.answer()


async def test_a_full_bulkhead_refuses_at_once_and_the_fallback_answers(world: World) -> None:
    world.have("main", "provider", concurrency=2)
    world.answers("main", After(0.5, says()))
    world.route(provider(fallback=["second"]))
    running = [asyncio.create_task(world.pipeline.run(request(), world.snapshot)) for _ in range(2)]
    await world.clock.settle()
    answer = await world.answer()
    assert answer.provider_id == "second"
    assert answer.trail[0].reason == "RESOURCE_EXHAUSTED"
    await world.clock.advance(1)
    assert all(task.done() for task in running)
    assert (await world.answer()).provider_id == "main"


async def test_a_step_with_breaker_settings_of_its_own_has_a_breaker_of_its_own(world: World) -> None:
    world.answers("check", fails("INTERNAL"))
    world.route(check(circuit_breaker={"failure_threshold": 2}), provider())
    for _ in range(2):
        await world.failure()
    assert world.runtime.breaker_states() == {"check@only/0": "open"}


# --- cancellation, faults of our own


async def test_cancelling_the_caller_cancels_the_step_that_runs(world: World) -> None:
    world.answers("main", After(0.9, says()))
    world.route(provider())
    task = asyncio.create_task(world.pipeline.run(request(), world.snapshot))
    await world.clock.settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert world.transport.cancelled == ["test.main"]
    assert world.recorder.steps == [("main", "provider", "error", "CANCELLED")]
    assert world.recorder.attempts == [("main", False, "CANCELLED")]
    assert world.runtime.load("main").in_flight == 0


async def test_cancelling_the_caller_cancels_a_whole_group(world: World) -> None:
    world.have("other", "validator")
    world.answers("other", After(0.9, PASS))
    world.answers("check", After(0.9, PASS))
    world.route(check(group="g"), check("other", group="g"), provider())
    task = asyncio.create_task(world.pipeline.run(request(), world.snapshot))
    await world.clock.settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sorted(world.transport.cancelled) == ["test.check", "test.other"]


async def test_a_cancelled_probe_gives_its_place_back(world: World) -> None:
    world.route(check(), provider())
    await open_breaker(world, "check")
    world.answers("check", After(0.9, PASS))
    await world.clock.advance(30)
    task = asyncio.create_task(world.pipeline.run(request(), world.snapshot))
    await world.clock.settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await world.answer()


async def test_a_fault_of_the_transport_becomes_internal_and_holds_nothing_back(world: World) -> None:
    world.answers("main", RuntimeError("secret content"))
    world.route(provider())
    failure = await world.failure()
    assert failure.error.code is ErrorCode.INTERNAL
    assert "secret" not in failure.error.message
    assert world.runtime.load("main").in_flight == 0
    assert world.runtime.breaker_states() == {"main": "closed"}


# --- what extensions may not do


@pytest.mark.parametrize(
    "name", ["tenant_id", "request_id", "trace_id", "extension_id", "provider_id", "deadline_ms", "route"]
)
async def test_a_pre_step_cant_change(world: World, name: str) -> None:
    world.answers("pre", {name: "evil", "prompt": "hi"})
    world.route(pre(), provider())
    answer = await world.answer()
    body = world.transport.calls("test.main")[0].body
    assert body["prompt"] == "hi"
    assert "evil" not in body.values()
    assert answer.provider_id == "main"
    assert world.recorder.drops == [("pre", name)]


async def test_a_provider_cant_pose_as_another(world: World) -> None:
    world.answers("main", {**says(), "provider_id": "second"})
    world.route(provider())
    assert (await world.answer()).provider_id == "main"
    assert world.recorder.drops == [("main", "provider_id")]


# --- context


async def test_the_callers_trace_goes_on_with_a_span_of_its_own_per_step(world: World) -> None:
    world.route(pre(), provider())
    parent = f"00-{'4b' * 16}-{'0a' * 8}-00"
    answer = await world.answer(traceparent=parent, tracestate="a=b", baggage="k=v")
    first, second = (sent.headers for sent in world.transport.sent)
    assert first["traceparent"].startswith(f"00-{'4b' * 16}-")
    assert first["traceparent"].endswith("-00")
    assert len({parent, first["traceparent"], second["traceparent"]}) == 3
    assert (first["tracestate"], first["baggage"], first["Beamline-Request-Id"]) == ("a=b", "k=v", "req-1")
    assert answer.metadata["trace_id"] == "4b" * 16


@pytest.mark.parametrize(
    "bad", [None, "", "garbage", f"00-{'0' * 32}-{'1' * 16}-01", f"ff-{'1' * 32}-{'1' * 16}-01"]
)
async def test_without_a_valid_trace_a_new_one_is_started(world: World, bad: str | None) -> None:
    world.route(provider())
    await world.answer(traceparent=bad)
    version, trace_id, span_id, flags = world.transport.sent[0].headers["traceparent"].split("-")
    assert (version, len(trace_id), len(span_id), flags) == ("00", 32, 16, "01")
    assert int(trace_id, 16)


async def test_a_value_that_could_break_a_header_line_is_not_passed_on(world: World) -> None:
    world.route(provider())
    await world.answer(baggage="a=b\r\nBeamline-Deadline-Ms: 1")
    assert "baggage" not in world.transport.sent[0].headers


async def test_an_answer_that_comes_after_the_deadline_is_no_answer(world: World) -> None:
    def late(_: Any) -> dict[str, Any]:
        world.clock.now += 60
        return says()

    world.answers("main", late)
    world.route(provider(), deadline_ms=1_000)
    assert (await world.failure()).error.code is ErrorCode.DEADLINE_EXCEEDED
