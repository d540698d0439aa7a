"""What the runtime promises to an author's code, in this process, on a real nats-server."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from nats.errors import Error as NatsError

from beamline_cli.local.nats import LocalNats
from beamline_sdk import (
    Config,
    ExtensionError,
    ExtensionRequest,
    NotReadyError,
    Patch,
    Provider,
    ProviderReply,
    Setup,
    Verdict,
    hosting,
    pre,
    provider,
    runtime,
    validator,
)

BODY = {"prompt": "x", "trace_id": "t", "request_id": "r", "tenant_id": "a", "parameters": {}, "context": {}}


class Settings(Config):
    number: int = 1


async def test_requests_are_worked_on_at_the_same_time(
    client: Any, nats_server: LocalNats, subject: str, tools: Any
) -> None:
    together = asyncio.Barrier(20)

    @pre
    async def meet(request: ExtensionRequest, config: Settings) -> Patch:
        await together.wait()
        return Patch(prompt="met")

    async with tools.serving(meet, nats_server.url, subject):
        answers = await asyncio.gather(*(tools.ask(client, subject, BODY) for _ in range(20)))
    assert answers == [{"prompt": "met"}] * 20


async def test_beyond_the_limit_requests_wait_and_beyond_that_they_are_refused(
    client: Any, nats_server: LocalNats, subject: str, tools: Any
) -> None:
    gate = asyncio.Event()
    at_work = most = 0

    @pre
    async def slow(request: ExtensionRequest, config: Settings) -> Patch:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        await gate.wait()
        at_work -= 1
        return Patch(prompt="done")

    async with tools.serving(slow, nats_server.url, subject, concurrency=2, backlog=3):
        asked = [asyncio.create_task(tools.ask(client, subject, BODY)) for _ in range(9)]
        await tools.eventually(lambda: sum(task.done() for task in asked) == 4, "four were refused")
        gate.set()
        answers = await asyncio.gather(*asked)
    errors = [answer["error"] for answer in answers if "error" in answer]
    assert [(error["code"], error["retryable"], error["retry_after_ms"]) for error in errors] == [
        ("RESOURCE_EXHAUSTED", True, 100)
    ] * 4
    assert sum(answer == {"prompt": "done"} for answer in answers) == 5
    assert most == 2


async def test_work_that_waited_past_its_deadline_is_not_begun(
    client: Any, nats_server: LocalNats, subject: str, tools: Any
) -> None:
    gate, begun = asyncio.Event(), []

    @pre
    async def slow(request: ExtensionRequest, config: Settings) -> Patch:
        begun.append(request.request_id)
        await gate.wait()
        return Patch()

    async with tools.serving(slow, nats_server.url, subject, concurrency=1):
        first = asyncio.create_task(tools.ask(client, subject, BODY | {"request_id": "first"}))
        await tools.eventually(lambda: begun == ["first"], "the first is at work")
        late = asyncio.create_task(
            tools.ask(client, subject, BODY | {"request_id": "late"}, headers={"Beamline-Deadline-Ms": "30"})
        )
        await client.flush()
        sent = time.monotonic()
        await tools.eventually(lambda: time.monotonic() - sent > 0.1, "the deadline has passed")
        gate.set()
        assert await first == {}
        assert (await late)["error"]["code"] == "DEADLINE_EXCEEDED"
    assert begun == ["first"]


async def test_at_the_deadline_work_is_cancelled_and_the_caller_told(
    client: Any, nats_server: LocalNats, subject: str, tools: Any
) -> None:
    seen: list[Any] = []

    @provider
    async def endless(request: ExtensionRequest, config: Settings) -> ProviderReply:
        seen.append(request.remaining_ms())
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise
        return ProviderReply("")

    async with tools.serving(endless, nats_server.url, subject):
        answer = await tools.ask(client, subject, BODY, headers={"Beamline-Deadline-Ms": "80"})
    assert answer["error"]["code"] == "DEADLINE_EXCEEDED"
    assert seen[1] == "cancelled"
    assert 0 < seen[0] <= 80


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        pytest.param(b"\xff\xfe", "INVALID_ARGUMENT", "not JSON", id="bytes that are no text"),
        pytest.param(b"[" * 5000, "INVALID_ARGUMENT", "not JSON", id="a tower of brackets"),
        pytest.param(b'{"prompt": 1}', "INVALID_ARGUMENT", "prompt must be a string", id="a wrong type"),
        pytest.param(b"{}", "INVALID_ARGUMENT", "prompt or messages is missing", id="nothing to work on"),
        pytest.param(
            json.dumps(BODY | {"config": {"number": "much"}}).encode(),
            "INTERNAL",
            "config.number: Input should be a valid integer",
            id="a configuration that the model refuses",
        ),
    ],
)
async def test_what_can_not_be_worked_on_is_answered_and_not_executed(
    client: Any, nats_server: LocalNats, subject: str, *, tools: Any, body: bytes, code: str, words: str
) -> None:
    @pre
    async def never(request: ExtensionRequest, config: Settings) -> Patch:
        raise AssertionError("was called")

    async with tools.serving(never, nats_server.url, subject):
        answer = await tools.ask(client, subject, body)
    assert answer["error"]["code"] == code
    assert words in answer["error"]["message"]
    assert answer["error"]["retryable"] is False
    assert answer["error"]["extension_id"] == "never"


async def test_a_bad_deadline_header_is_the_callers_fault(
    client: Any, nats_server: LocalNats, subject: str, tools: Any
) -> None:
    @pre
    async def fine(request: ExtensionRequest, config: Settings) -> None:
        return None

    async with tools.serving(fine, nats_server.url, subject):
        answer = await tools.ask(client, subject, BODY, headers={"Beamline-Deadline-Ms": "soon"})
    assert answer["error"]["code"] == "INVALID_ARGUMENT"


async def test_an_unexpected_exception_keeps_its_text_to_itself(
    client: Any, nats_server: LocalNats, subject: str, tools: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    @pre
    async def broken(request: ExtensionRequest, config: Settings) -> Patch:
        raise RuntimeError(f"a secret: {request.prompt}")

    async with tools.serving(broken, nats_server.url, subject):
        answer = await tools.ask(client, subject, BODY | {"prompt": "c4n4ry"})
    assert answer == {
        "error": {
            "code": "INTERNAL",
            "message": "broken failed",
            "retryable": True,
            "extension_id": "broken",
        }
    }
    written = "".join(capsys.readouterr())
    assert "RuntimeError" in written
    assert "c4n4ry" not in written


async def test_a_declared_error_reaches_the_caller_whole(
    client: Any, nats_server: LocalNats, subject: str, tools: Any
) -> None:
    @validator
    async def busy(request: ExtensionRequest, config: Settings) -> Verdict:
        raise ExtensionError(
            "RESOURCE_EXHAUSTED", "slow down", retry_after_ms=1500, details={"limit": config.number}
        )

    async with tools.serving(busy, nats_server.url, subject, config={"number": 7}):
        by_default = await tools.ask(client, subject, BODY)
        by_request = await tools.ask(client, subject, BODY | {"config": {"number": 8}})
    assert by_default["error"] == {
        "code": "RESOURCE_EXHAUSTED",
        "message": "slow down",
        "retryable": True,
        "retry_after_ms": 1500,
        "extension_id": "busy",
        "details": {"limit": 7},
    }
    assert by_request["error"]["details"] == {"limit": 8}


async def test_an_answer_that_is_too_large_or_of_the_wrong_kind_is_an_error_and_the_connection_stays(
    client: Any, nats_server: LocalNats, subject: str, tools: Any
) -> None:
    @provider
    async def odd(request: ExtensionRequest, config: Settings) -> Any:
        if request.prompt == "large":
            return ProviderReply("x" * 1024 * 1024)
        if request.prompt == "wrong":
            return Patch()
        return ProviderReply("ok")

    trace = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}
    async with tools.serving(odd, nats_server.url, subject):
        large = await tools.ask(client, subject, BODY | {"prompt": "large"}, headers=trace)
        wrong = await tools.ask(client, subject, BODY | {"prompt": "wrong"})
        fine = await tools.ask(client, subject, BODY | {"trace_id": ""}, headers=trace)
    assert large["error"]["message"] == "the answer of odd is larger than 1 MiB"
    assert (large["error"]["code"], large["error"]["retryable"]) == ("INTERNAL", False)
    assert wrong["error"]["code"] == "INTERNAL"
    assert (fine["output"], fine["metadata"]["trace_id"]) == ("ok", "a" * 32)


async def test_a_message_without_a_reply_address_is_not_executed(
    client: Any, nats_server: LocalNats, subject: str, tools: Any
) -> None:
    calls = []

    @pre
    async def counting(request: ExtensionRequest, config: Settings) -> None:
        calls.append(request.prompt)

    async with tools.serving(counting, nats_server.url, subject):
        await client.publish(subject, json.dumps(BODY).encode())
        await tools.ask(client, subject, BODY | {"prompt": "asked"})
    assert calls == ["asked"]


class Fragile(Provider[Settings]):
    """Not ready at first, unwell later, and broken at the end."""

    name = "fragile"
    config_model = Settings

    def __init__(self) -> None:
        self.life: list[str] = []
        self.key: str | None = None
        self.well = True

    async def initialize(self, setup: Setup) -> None:
        self.life.append("initialize")
        if self.key is None:
            raise NotReadyError("CredentialsMissing", "FRAGILE_API_KEY is not set")

    async def start(self) -> None:
        self.life.append("start")

    async def health_check(self) -> str | None:
        return None if self.well else "the upstream refuses the key"

    async def handle(self, request: ExtensionRequest, config: Settings) -> ProviderReply:
        self.life.append("handle")
        return ProviderReply("ok")

    async def stop(self) -> None:
        self.life.append("stop")
        raise RuntimeError("can't even stop")


async def test_a_missing_key_is_a_reason_not_a_crash_and_serving_begins_when_it_is_there(
    client: Any,
    nats_server: LocalNats,
    subject: str,
    tools: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runtime, "INITIALIZE_RETRY_SECONDS", 0.05)
    monkeypatch.setattr(hosting, "HEALTH_INTERVAL_SECONDS", 0.05)
    fragile = Fragile()
    async with tools.serving(fragile, nats_server.url, subject, wait_ready=False) as port:

        async def says(status: int, words: str) -> bool:
            answer = await tools.get(port, "/readyz")
            return bool(answer[0] == status and words in answer[1])

        await tools.eventually(
            lambda: says(503, "CredentialsMissing: FRAGILE_API_KEY is not set"), "it says what is missing"
        )
        assert (await tools.get(port, "/healthz"))[0] == 200
        with pytest.raises(NatsError):
            await client.request(subject, b"{}", timeout=1)
        fragile.key = "k"
        await tools.eventually(lambda: says(200, "ok"), "it becomes ready")
        assert (await tools.ask(client, subject, BODY))["output"] == "ok"
        fragile.well = False
        await tools.eventually(lambda: says(503, "Unhealthy: the upstream refuses the key"), "it is unwell")
        fragile.well = True
        await tools.eventually(lambda: says(200, "ok"), "it is well again")
    assert fragile.life[-3:] == ["start", "handle", "stop"]
    assert set(fragile.life[:-3]) == {"initialize"}


async def test_what_is_in_work_at_the_stop_is_answered_before_the_end(
    client: Any, nats_server: LocalNats, subject: str, tools: Any
) -> None:
    gate, begun = asyncio.Event(), []

    @pre
    async def slow(request: ExtensionRequest, config: Settings) -> Patch:
        begun.append(1)
        await gate.wait()
        return Patch(prompt="done")

    async with tools.serving(slow, nats_server.url, subject, concurrency=2) as port:
        asked = [asyncio.create_task(tools.ask(client, subject, BODY)) for _ in range(5)]
        await tools.eventually(lambda: len(begun) == 2, "two are at work, three wait")
        await client.flush()
        asyncio.get_running_loop().call_later(0.1, gate.set)
    assert await asyncio.gather(*asked) == [{"prompt": "done"}] * 5
    with pytest.raises(OSError, match="Connect call failed"):
        await tools.get(port, "/healthz")


async def test_what_does_not_end_within_the_grace_time_is_told_to_the_caller(
    client: Any, nats_server: LocalNats, subject: str, tools: Any
) -> None:
    begun = []

    @pre
    async def endless(request: ExtensionRequest, config: Settings) -> Patch:
        begun.append(1)
        await asyncio.Event().wait()
        return Patch()

    async with tools.serving(endless, nats_server.url, subject, concurrency=1):
        asked = [asyncio.create_task(tools.ask(client, subject, BODY)) for _ in range(2)]
        await tools.eventually(lambda: begun, "one is at work, one waits")
        await client.flush()
    codes = [answer["error"]["code"] for answer in await asyncio.gather(*asked)]
    assert codes == ["UNAVAILABLE", "UNAVAILABLE"]


async def test_a_connection_that_is_closed_for_good_is_replaced(
    client: Any,
    nats_server: LocalNats,
    subject: str,
    tools: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connections: list[Any] = []
    real = runtime.connect

    async def recorded(*arguments: Any, **options: Any) -> Any:
        connections.append(await real(*arguments, **options))
        return connections[-1]

    monkeypatch.setattr(runtime, "connect", recorded)

    @pre
    async def fine(request: ExtensionRequest, config: Settings) -> Patch:
        return Patch(prompt="fine")

    async with tools.serving(fine, nats_server.url, subject) as port:
        await connections[0].close()

        async def answered() -> bool:
            try:
                return bool(await tools.ask(client, subject, BODY) == {"prompt": "fine"})
            except NatsError:
                return False

        await tools.eventually(lambda: len(connections) == 2, "a new connection was opened")
        await tools.eventually(answered, "it serves again")
        assert (await tools.get(port, "/readyz"))[0] == 200
