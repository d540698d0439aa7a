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
from beamline_contract.wire import MAX_BODY_BYTES, MAX_REPLY_BYTES, PROTECTED_FIELDS
from beamline_router.core.intake import open_envelope, read_request
from beamline_router.core.ports import TransportFault
from beamline_router.core.request import Answer, Failure, Request
from harness.router_world import PASS, World, check, fails, post, pre, provider, says

QUICK = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
DEEP = 10_000


def take(body: bytes, **headers: str) -> Request | WireError:
    envelope = open_envelope(headers, lambda _: 7)
    return read_request(body, headers, envelope, now=1_000.0, unix_ms=1.7e12)


def nested(open_: str, close: str, count: int = DEEP) -> bytes:
    return (open_ * count + close * count).encode()


# --- requests

REQUESTS: list[Any] = [
    pytest.param(b"", id="nothing"),
    pytest.param(b"\xff\xfe\x00", id="bytes that are no UTF-8"),
    pytest.param(b'{"prompt": "\xc3\x28"}', id="a prompt with invalid UTF-8"),
    pytest.param(b'{"prompt": "\xed\xa0\x80"}', id="a surrogate in UTF-8"),
    pytest.param(rb'{"prompt": "\ud800"}', id="half a surrogate pair"),
    pytest.param(b"\xef\xbb\xbf" + b'{"prompt": "x"}', id="a byte order mark"),
    pytest.param(b'{"prompt": "a\x00b"}', id="a raw control character"),
    pytest.param(nested("[", "]"), id="ten thousand lists"),
    pytest.param(nested('{"a":', "}").replace(b":}", b":1}"), id="ten thousand objects"),
    pytest.param(b'{"prompt": "x", "context": ' + nested('{"a":', "}") + b"}", id="a deep context"),
    pytest.param(b"[" * DEEP, id="brackets that never close"),
    pytest.param(b"]" * DEEP, id="brackets that never opened"),
    pytest.param(b'{"prompt": "' + b"x" * MAX_BODY_BYTES + b'"}', id="one that is too large"),
    pytest.param(b'{"prompt": "' + b"x" * (1 << 20) + b'"}', id="a mebibyte and a little"),
    pytest.param(b'{"prompt": "x", "parameters": {"temperature": NaN}}', id="NaN"),
    pytest.param(b'{"prompt": "x", "parameters": {"temperature": Infinity}}', id="Infinity"),
    pytest.param(b'{"prompt": "x", "parameters": {"n": 1e999}}', id="a number beyond all bounds"),
    pytest.param(b'{"prompt": "x", "prompt": 5}', id="a key twice, the last of the wrong type"),
    pytest.param(b'{"prompt": "x",}', id="a comma too many"),
    pytest.param(b"null", id="null"),
    pytest.param(b'"prompt"', id="text alone"),
    pytest.param(b"[]", id="a list"),
    pytest.param(b"{}", id="an empty object"),
    pytest.param(b'{"prompt": ["x"]}', id="a list as prompt"),
    pytest.param(b'{"prompt": "x", "messages": []}', id="both prompt and messages"),
    pytest.param(b'{"messages": {"role": "user"}}', id="an object as messages"),
    pytest.param(b'{"messages": [["user"]]}', id="lists as messages"),
    pytest.param(b'{"messages": [{"role": 1}]}', id="a number as role"),
    pytest.param(b'{"prompt": "x", "tenant_id": 5}', id="a number as tenant"),
    pytest.param(b'{"prompt": "x", "tenant_id": "a b"}', id="a tenant with a blank"),
    pytest.param(b'{"prompt": "x", "tenant_id": "a\\n"}', id="a tenant with a line break"),
    pytest.param(b'{"prompt": "x", "model": "' + b"m" * 257 + b'"}', id="a model that is too long"),
    pytest.param(b'{"prompt": "x", "policy": "../../x"}', id="a path as policy"),
    pytest.param(b'{"prompt": "x", "parameters": []}', id="a list as parameters"),
    pytest.param(b'{"prompt": "x", "context": "x"}', id="text as context"),
    pytest.param(b'{"prompt": "x", "__proto__": {}}', id="a field that nobody knows"),
    pytest.param(b'{"prompt": "x", "deadline_ms": 1}', id="a deadline in the body"),
]


@pytest.mark.parametrize("body", REQUESTS)
def test_a_poisoned_request_is_an_invalid_argument(body: bytes) -> None:
    error = take(body)
    if isinstance(error, Request):  # orjson reads 1e999 as infinity or refuses, by version: never as text
        pytest.fail(f"was taken: {error!r:.200}")
    assert error.code is ErrorCode.INVALID_ARGUMENT
    assert len(error.message) < 1_100
    orjson.dumps(error.to_wire())


JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
FIELDS = ("tenant_id", "environment", "model", "policy", "prompt", "messages", "parameters", "context")


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


# --- replies

REPLIES: list[Any] = [
    pytest.param(b"", id="nothing"),
    pytest.param(b"\xff\xfe", id="bytes that are no UTF-8"),
    pytest.param(b'{"output": "\xc3\x28", "verdict": "\xc3\x28"}', id="text with invalid UTF-8"),
    pytest.param(rb'{"output": "\ud800", "verdict": "\ud800"}', id="half a surrogate pair"),
    pytest.param(nested("[", "]"), id="ten thousand lists"),
    pytest.param(b'{"metadata": ' + nested('{"a":', "}") + b"}", id="deep metadata"),
    pytest.param(b'{"output": "' + b"x" * MAX_REPLY_BYTES + b'"}', id="one that is too large"),
    pytest.param(b'{"output": "x", "usage": {"prompt_tokens": NaN}}', id="NaN"),
    pytest.param(b"null", id="null"),
    pytest.param(b"[1]", id="a list"),
    pytest.param(b'"output"', id="text alone"),
    pytest.param(b'{"output": 5, "verdict": 5}', id="numbers for text"),
    pytest.param(b'{"output": ["x"], "verdict": ["pass"]}', id="lists for text"),
    pytest.param(b'{"output": "x", "output": {}, "verdict": "pass", "verdict": "maybe"}', id="keys twice"),
    pytest.param(b'{"error": 5}', id="a number as error"),
    pytest.param(b'{"error": {"code": {"a": 1}, "message": [], "details": 5}}', id="an error of wrong types"),
    pytest.param(b'{"error": {"code": "INTERNAL", "retry_after_ms": -1e400}}', id="a pause beyond bounds"),
]


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


HOSTILE = {
    "tenant_id": "victim",
    "request_id": "forged",
    "trace_id": "f" * 32,
    "extension_id": "somebody",
    "provider_id": "somebody",
    "deadline_ms": 10**9,
    "route": "elsewhere",
    "policy": "elsewhere",
}


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
