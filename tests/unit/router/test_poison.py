"""Poison: whatever a caller sends is INVALID_ARGUMENT or a request, whatever an extension sends is a value or
a step's error. Nothing raises, nothing changes who is asking, and a poisoned request moves no breaker.
"""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beamline_contract.errors import ErrorCode, WireError
from beamline_contract.wire import PROTECTED_FIELDS
from beamline_router.core.envelope import open_envelope
from beamline_router.core.intake import read_request
from beamline_router.core.ports import TransportFault
from beamline_router.core.request import Answer, Failure, Request
from harness.poison import FIELDS, HOSTILE, JUNK, REPLIES, REQUESTS
from harness.router_world import PASS, World, check, fails, post, pre, provider, says

QUICK = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


def take(body: bytes, **headers: str) -> Request | WireError:
    envelope = open_envelope(headers, lambda _: 7)
    return read_request(body, headers, envelope, now=1_000.0, unix_ms=1.7e12)


# --- requests


@pytest.mark.parametrize("body", REQUESTS)
def test_a_poisoned_request_is_an_invalid_argument(body: bytes) -> None:
    error = take(body)
    if isinstance(error, Request):  # orjson reads 1e999 as infinity or refuses, by version: never as text
        pytest.fail(f"was taken: {error!r:.200}")
    assert error.code is ErrorCode.INVALID_ARGUMENT
    assert len(error.message) < 1_100
    orjson.dumps(error.to_wire())


@QUICK
@given(st.binary(max_size=400))
def test_no_bytes_raise_at_the_door(body: bytes) -> None:
    result = take(body)
    assert isinstance(result, Request) or result.code is ErrorCode.INVALID_ARGUMENT


@QUICK
@given(st.dictionaries(st.sampled_from(FIELDS), JUNK, max_size=8))
def test_no_object_raises_and_what_passes_has_its_types(document: dict[str, Any]) -> None:
    try:
        body = orjson.dumps(document)
    except orjson.JSONEncodeError:
        return
    result = take(body)
    if isinstance(result, WireError):
        assert result.code is ErrorCode.INVALID_ARGUMENT
        return
    assert (result.prompt is None) != (result.messages is None)
    assert isinstance(result.tenant_id, str)
    assert isinstance(result.parameters, dict)
    assert isinstance(result.context, dict)


@QUICK
@given(st.binary(max_size=60), st.integers(0, 58), st.integers(0, 255))
def test_one_flipped_byte_never_raises(noise: bytes, at: int, value: int) -> None:
    body = bytearray(b'{"prompt": "hello", "context": {"a": [1, 2]}, "model": "m"}' + noise)
    body[at] = value
    result = take(bytes(body))
    assert isinstance(result, Request) or result.code is ErrorCode.INVALID_ARGUMENT


@pytest.mark.parametrize("value", ["abc", "-5", "1e3", "NaN", "", " 5", "9" * 400, "\u0665"])
def test_a_poisoned_deadline_is_an_invalid_argument(value: str) -> None:
    result = take(b'{"prompt": "x"}', **{"beamline-deadline-ms": value})
    assert isinstance(result, WireError)
    assert result.code is ErrorCode.INVALID_ARGUMENT


async def test_a_request_that_every_extension_calls_invalid_moves_no_breaker_and_costs_no_budget(
    world: World,
) -> None:
    for name in ("pre", "check", "main", "post"):
        world.have(name, {"check": "validator", "main": "provider"}.get(name, name), retry=2)
        world.answers(name, fails("INVALID_ARGUMENT", retryable=True))
    world.route(pre(), check(failure_mode="open"), provider(fallback=["second"]), post())
    for _ in range(30):
        await world.failure()
    assert set(world.runtime.breaker_states().values()) == {"closed"}
    assert {world.runtime.load(name).budget.tokens for name in ("pre", "check", "main")} == {10.0}
    assert not any(failed for _, failed, _ in world.recorder.attempts)


async def test_a_request_that_is_too_large_for_nats_is_the_callers_fault(world: World) -> None:
    world.answers("main", TransportFault.TOO_LARGE)
    world.route(provider(fallback=["second"]))
    failure = await world.failure()
    assert (failure.error.code, failure.error.http_status) == (ErrorCode.INVALID_ARGUMENT, 413)
    assert world.runtime.breaker_states() == {"main": "closed"}


@pytest.mark.parametrize("who", ["main", "post"])
async def test_what_steps_made_too_large_for_nats_is_not_the_callers_fault(world: World, who: str) -> None:
    world.answers("pre", {"prompt": "much more than was asked"})
    world.answers(who, TransportFault.TOO_LARGE)
    world.route(pre(), provider(), post(failure_mode="closed"))
    failure = await world.failure()
    assert (failure.error.code, failure.error.extension_id) == (ErrorCode.INTERNAL, who)
    assert "http_status" not in failure.error.details
    assert not failure.error.retryable
    assert world.runtime.breaker_states()[who] == "closed"
    assert not any(failed for _, failed, _ in world.recorder.attempts)


# --- replies


@pytest.mark.parametrize("reply", REPLIES)
@pytest.mark.parametrize("who", ["pre", "check", "main", "post"])
async def test_a_poisoned_reply_is_an_error_of_its_step_and_counts_against_its_sender(
    world: World, who: str, reply: bytes
) -> None:
    world.answers(who, reply)
    mode = {"failure_mode": "closed"}
    world.route(pre(**mode), check(**mode), provider(), post(**mode))
    failure = await world.failure()
    assert failure.error.code is ErrorCode.INTERNAL
    assert failure.error.extension_id == who
    assert len(failure.error.message) < 1_100
    assert [name for name, failed, _ in world.recorder.attempts if failed] == [who]


async def test_hostile_replies_change_neither_identity_nor_deadline_nor_route(world: World) -> None:
    world.answers("pre", {**HOSTILE, "context": {"note": "kept"}})
    world.answers("check", {**HOSTILE, **PASS})
    world.answers("main", {**HOSTILE, **says("an answer")})
    world.answers("post", {**HOSTILE, "metadata": {"seen": True}})
    world.route(pre(), check(), provider(), post(), deadline_ms=5_000)
    answer = await world.answer(trace_id="a" * 32)
    assert (answer.provider_id, answer.policy_id, answer.output) == ("main", "only", "an answer")
    assert answer.metadata["trace_id"] == "a" * 32
    for sent in world.transport.sent:
        assert sent.body["tenant_id"] == "acme"
        assert sent.body["request_id"] == "req-1"
        assert sent.body["trace_id"] == "a" * 32
        assert int(sent.headers["Beamline-Deadline-Ms"]) <= 5_000
        assert "victim" not in orjson.dumps(sent.body).decode()
    assert {name for name, _ in world.recorder.drops} == {"pre", "check", "main", "post"}
    assert {what for _, what in world.recorder.drops} <= PROTECTED_FIELDS


@QUICK
@given(
    pre_says=JUNK,
    check_says=JUNK,
    main_says=JUNK,
    post_says=JUNK,
    open_=st.booleans(),
)
async def test_no_reply_of_any_step_raises_or_poses_as_another(
    pre_says: Any, check_says: Any, main_says: Any, post_says: Any, open_: bool
) -> None:
    world = World()
    for name, junk in (("pre", pre_says), ("check", check_says), ("main", main_says), ("post", post_says)):
        try:
            reply = orjson.dumps(junk)
        except orjson.JSONEncodeError:
            reply = b"\xff"
        world.answers(name, reply)
    world.route(pre(), check(failure_mode="open" if open_ else "closed"), provider(), post())
    result = await world.ask()
    if isinstance(result, Answer):
        assert result.provider_id in {"main", "pre"}
        assert isinstance(result.output, str)
    else:
        assert isinstance(result, Failure)
        assert result.error.request_id == "req-1"
    assert {sent.body["tenant_id"] for sent in world.transport.sent} == {"acme"}
