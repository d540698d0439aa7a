"""Poison at the real doors and in real replies: INVALID_ARGUMENT or a step's error, and a router that serves
on.

The corpus is ``harness.poison``; hypothesis adds what nobody thought of.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import nats.errors
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nats.aio.msg import Msg

from beamline_contract.names import SUBJECT_INVOKE
from harness.poison import FIELDS, HOSTILE, JUNK, REPLIES, REQUESTS

from .conftest import PIPELINE, Served, Site, eventually, extension, policy, running

MANY = settings(max_examples=35, suppress_health_check=[HealthCheck.function_scoped_fixture])
JSON = {"content-type": "application/json"}
PATIENT = {"circuitBreaker": {"failureThreshold": 10_000, "minFailureRatio": 1.0}}
STEMS = {"pre": "ext.pre", "validator": "ext.validate", "provider": "provider", "post": "ext.post"}


@pytest.fixture
async def served(site: Site) -> AsyncIterator[Served]:
    async with running(site.settings()) as one:
        yield one


def corpus(cases: list[Any]) -> dict[str, bytes]:
    return {str(case.id): case.values[0] for case in cases}


async def over_nats(site: Site, body: bytes) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads((await site.nc.request(SUBJECT_INVOKE, body, timeout=10)).data)
    return found


async def unharmed(site: Site, served: Served) -> None:
    """Nothing was called for the poison, no breaker has moved, and the next request is answered."""
    assert set(served.router.runtime.breaker_states().values()) <= {"closed"}
    assert await served.answers()
    assert site.calls["echo"] == site.calls["guard"]


async def test_every_poisoned_body_is_an_invalid_argument_at_both_doors(site: Site, served: Served) -> None:
    for name, body in corpus(REQUESTS).items():
        reply = await served.http.post("/v1/route", content=body, headers=JSON)
        assert reply.status_code in {400, 413}, name
        assert reply.json()["error"]["code"] == "INVALID_ARGUMENT", name
        chat = await served.http.post("/v1/chat/completions", content=body, headers=JSON)
        assert chat.status_code in {400, 413}, name
        assert chat.json()["error"]["type"] == "invalid_request_error", name
        if len(body) > 1 << 20:
            with pytest.raises(nats.errors.MaxPayloadError):
                await over_nats(site, body)
        else:
            assert (await over_nats(site, body))["error"]["code"] == "INVALID_ARGUMENT", name
    assert not site.calls
    await unharmed(site, served)


async def test_a_mebibyte_and_a_byte_is_refused_by_its_length_alone(site: Site, served: Served) -> None:
    body = b'{"prompt": "' + b"x" * ((1 << 20) + 1 - 14) + b'"}'
    assert len(body) == (1 << 20) + 1
    reply = await served.http.post("/v1/route", content=body, headers=JSON)
    assert reply.status_code == 413
    assert (await over_nats(site, body[: 1 << 20]))["error"]["details"]["http_status"] == 413
    assert not site.calls


@MANY
@given(st.dictionaries(st.sampled_from(FIELDS), JUNK, max_size=6), st.booleans())
async def test_no_object_breaks_a_door(
    site: Site, served: Served, document: dict[str, Any], stream: bool
) -> None:
    try:
        body = orjson.dumps({**document, "stream": stream} if stream else document)
    except orjson.JSONEncodeError:
        return
    reply = await served.http.post("/v1/route", content=body, headers=JSON)
    assert reply.status_code in {200, 400, 404, 413, 422}
    if not stream:
        told = await over_nats(site, body)
        assert ("error" in told) == (reply.status_code != 200)
        if reply.status_code != 200:
            assert told["error"]["code"] == reply.json()["error"]["code"]
    assert set(served.router.runtime.breaker_states().values()) <= {"closed"}


@MANY
@given(st.binary(max_size=300))
async def test_no_bytes_break_a_door(site: Site, served: Served, body: bytes) -> None:
    assert (await over_nats(site, body))["error"]["code"] == "INVALID_ARGUMENT"
    assert (await served.http.post("/v1/route", content=body, headers=JSON)).status_code == 400
    assert (await served.http.post("/v1/chat/completions", content=body, headers=JSON)).status_code == 400


HEADERS: dict[str, str] = {
    "traceparent": "00-" + "z" * 32 + "-" + "1" * 16 + "-01",
    "tracestate": "x" * 9_000,
    "baggage": "k=" + "v" * 9_000,
    "x-request-id": "a b;c",
}


async def test_poisoned_headers_are_dropped_or_refused_by_name(site: Site, served: Served) -> None:
    reply = await served.http.post("/v1/route", json={"prompt": "x"}, headers=HEADERS)
    assert reply.status_code == 200
    assert reply.headers["x-request-id"] != HEADERS["x-request-id"]
    assert "z" not in reply.headers["traceparent"]
    for value in ("NaN", "-1", "1e3", "9" * 400, ""):
        reply = await served.http.post(
            "/v1/route", json={"prompt": "x"}, headers={"beamline-deadline-ms": value}
        )
        assert (reply.status_code, reply.json()["error"]["code"]) == (400, "INVALID_ARGUMENT"), value
    await unharmed(site, served)


@dataclass
class Liar:
    """One extension of each type that answers whatever ``says`` holds."""

    says: dict[str, bytes] = field(default_factory=dict)
    heard: list[dict[str, Any]] = field(default_factory=list)

    async def settle(self, site: Site, **spec: Any) -> None:
        for kind, stem in STEMS.items():
            subject = f"beamline.{stem}.liar_{kind}.v1"

            async def answer(message: Msg, kind: str = kind) -> None:
                self.heard.append(orjson.loads(message.data))
                await message.respond(self.says[kind])

            await site.nc.subscribe(subject, queue=kind, cb=answer)
            await site.put(extension(f"liar_{kind}", kind, subject=subject, retry=0, spec=spec), hint=False)
        await site.put(policy("lies", LIES))

    def tell(self, kind: str, reply: bytes) -> None:
        """One of them lies; the others are honest."""
        self.heard.clear()
        self.says = {
            "pre": b"{}",
            "validator": b'{"verdict":"pass"}',
            "provider": b'{"output":"an answer"}',
            "post": b"{}",
            kind: reply,
        }


CLOSED = {"failure_mode": "closed"}
LIES: list[dict[str, Any]] = [
    {"action": "extension_pre", "extension_id": "liar_pre", **CLOSED},
    {"action": "extension_validator", "extension_id": "liar_validator"},
    {"action": "select_provider", "provider_id": "liar_provider"},
    {"action": "extension_post", "extension_id": "liar_post", **CLOSED},
]
LIE = {"prompt": "x", "policy": "lies", "tenant_id": "acme"}


@pytest.fixture
async def liar(site: Site) -> Liar:
    made = Liar()
    await made.settle(site, **PATIENT)
    return made


async def test_every_poisoned_reply_is_the_error_of_its_step(site: Site, liar: Liar, served: Served) -> None:
    for kind in STEMS:
        for name, reply in corpus(REPLIES).items():
            if len(reply) > 1 << 20:
                continue  # NATS does not carry it
            liar.tell(kind, reply)
            answer = await served.route(LIE)
            error = answer.json()["error"]
            assert (answer.status_code, error["code"]) == (500, "INTERNAL"), (kind, name)
            assert error["extension_id"] == f"liar_{kind}", (kind, name)
            assert len(error["message"]) < 1_100
    assert await served.answers()


async def test_five_poisoned_replies_open_the_breaker_and_any_number_of_poisoned_requests_does_not(
    site: Site,
) -> None:
    liar = Liar()
    await liar.settle(site)
    async with running(site.settings()) as served:
        for body in (b"{", b"[" * 10_000, b'{"prompt": 5}') * 10:
            await served.http.post("/v1/route", content=body, headers=JSON)
        refusing = orjson.dumps({"error": {"code": "INVALID_ARGUMENT", "message": "not this one"}})
        liar.tell("provider", refusing)
        for _ in range(10):
            assert (await served.route(LIE)).status_code == 400
        assert set(served.router.runtime.breaker_states().values()) <= {"closed"}
        liar.tell("provider", b"\xff")
        for _ in range(5):
            await served.route(LIE)
        assert served.router.runtime.breaker_states()["liar_provider"] == "open"


async def test_a_hostile_reply_changes_neither_identity_nor_deadline_nor_route(
    site: Site, liar: Liar, served: Served
) -> None:
    honest = {
        "pre": {"context": {"note": "kept"}},
        "validator": {"verdict": "pass"},
        "provider": {"output": "an answer"},
        "post": {"metadata": {"seen": True}},
    }
    for kind, says in honest.items():
        liar.tell(kind, orjson.dumps({**HOSTILE, **says}))
        answer = await served.route(LIE, **{"x-request-id": "mine", "beamline-deadline-ms": "5000"})
        body = answer.json()
        assert (answer.status_code, body["output"]) == (200, "an answer")
        assert (body["request_id"], body["policy"], body["provider_id"]) == ("mine", "lies", "liar_provider")
        assert body["metadata"]["trace_id"] != "f" * 32
        assert {(sent["tenant_id"], sent["request_id"]) for sent in liar.heard} == {("acme", "mine")}
        assert len(liar.heard) == 4
        text = (await served.http.get("/metrics")).text
        assert f'extension_id="liar_{kind}"' in "".join(
            row for row in text.splitlines() if "dropped" in row and "tenant_id" in row
        )


@settings(MANY, max_examples=30)
@given(st.sampled_from(sorted(STEMS)), JUNK | st.binary(max_size=60))
async def test_no_reply_breaks_a_request(
    site: Site, liar: Liar, served: Served, kind: str, junk: Any
) -> None:
    try:
        reply = junk if isinstance(junk, bytes) else orjson.dumps(junk)
    except orjson.JSONEncodeError:
        reply = b"\xff"
    liar.tell(kind, reply)
    answer = await served.route(LIE)
    body = answer.json()
    if answer.status_code == 200:
        assert isinstance(body["output"], str)
    else:
        assert body["error"]["request_id"] == answer.headers["x-request-id"]
        assert body["error"]["code"] in {"INTERNAL", "VALIDATION_REJECTED"}
    assert {sent["tenant_id"] for sent in liar.heard} == {"acme"}


CHUNKS: dict[str, bytes] = {
    "bytes that are no UTF-8": b'{"delta": "\xff"}',
    "ten thousand levels": b'{"message": ' + b'{"a":' * 500 + b"1" + b"}" * 501,
    "NaN": b'{"delta": NaN}',
    "a list": b"[]",
    "a number for text": b'{"delta": 5}',
    "half a surrogate pair": rb'{"delta": "\ud800"}',
}


async def test_poisoned_chunks_end_their_stream_and_a_foreign_control_subject_is_never_written_to(
    site: Site, served: Served
) -> None:
    overheard: list[bytes] = []
    chunk = b""

    async def note(message: Msg) -> None:
        overheard.append(message.data)

    async def stream(message: Msg) -> None:
        control = {"Beamline-Stream-Control": "beamline.test.victim"}
        for number, (payload, more) in enumerate([(b"{}", control), (b'{"delta":"a"}', {}), (chunk, {})]):
            headers = {"Beamline-Stream-Sequence": str(number), **more}
            await site.nc.publish(message.reply, payload, headers=headers)

    await site.nc.subscribe("beamline.test.victim", cb=note)
    await site.nc.subscribe("beamline.provider.hostile.v1", queue="hostile", cb=stream)
    await site.put(
        extension("hostile", "provider", retry=0, spec=PATIENT),
        policy("hostile", [{"action": "select_provider", "provider_id": "hostile"}]),
    )
    body = {"prompt": "x", "policy": "hostile"}
    await eventually(lambda: _known(served), "the policy is there")
    for name, chunk in CHUNKS.items():  # noqa: B007 -- the responder reads it
        reply = await served.route({**body, "stream": True})
        assert "STREAM_INTERRUPTED" in reply.text, name
        assert '{"delta":"a"}' in reply.text, name
    await site.nc.flush()
    await asyncio.sleep(0)
    assert overheard == []
    assert await served.answers()


def _known(served: Served) -> bool:
    snapshot = served.router.refresher.snapshot
    return snapshot is not None and served.router.refresher.stats.total_extensions > len(PIPELINE)
