"""The extensions that ship, as real processes on a real nats-server."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from nats.errors import NoRespondersError

from beamline_cli.local.nats import LocalNats
from beamline_extensions import catalogue

PAGE = Path(__file__).parents[3] / "docs" / "extensions" / "first.md"
CALLS = 'provider_requests_total{provider_id="mock_provider",status="success"}'
PROMPT = {"request_id": "r1", "tenant_id": "acme", "parameters": {}, "context": {}}


async def test_the_mock_answers_as_the_contract_says_and_returns_the_trace(
    start: Any, client: Any, nats_server: LocalNats, subject: str, tools: Any
) -> None:
    running = await start("mock_provider", NATS_URL=nats_server.url, NATS_SUBJECT=subject).is_ready()
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    body = PROMPT | {"trace_id": "t1", "prompt": "é" * 150, "config": {"mode": "echo"}}
    reply = await client.request(
        subject, json.dumps(body).encode(), timeout=10, headers={"traceparent": trace}
    )
    answer = json.loads(reply.data)
    assert answer["output"] == "Mock response to: " + "é" * 100 + " [provider=mock_provider]"
    assert answer["provider_id"] == "mock_provider"
    assert answer["usage"] == {"prompt_tokens": 75, "completion_tokens": 60, "total_tokens": 135}
    assert {name: answer["metadata"][name] for name in ("model", "finish_reason", "trace_id")} == {
        "model": "mock-1.0",
        "finish_reason": "stop",
        "trace_id": "t1",
    }
    assert answer["metadata"]["latency_ms"] >= 0
    assert reply.headers["traceparent"] == trace
    port = await running.port()
    assert await tools.get(port, "/readyz") == (200, '{"status":"ok"}')
    assert await tools.metric(port, 'provider_tokens_total{provider_id="mock_provider",type="prompt"}') == 75
    running.terminate()
    assert await running.exit_code() == 0


async def test_expired_work_is_refused_and_never_executed(
    start: Any, client: Any, nats_server: LocalNats, subject: str, tools: Any
) -> None:
    running = await start("mock_provider", NATS_URL=nats_server.url, NATS_SUBJECT=subject).is_ready()
    port = await running.port()
    late = [
        {"Beamline-Deadline-Ms": "0"},
        {"Beamline-Deadline-Ms": "-5"},
        {"Beamline-Deadline-Ms": "5000", "Beamline-Deadline-At": str(int(time.time() * 1000) - 1000)},
    ]
    for headers in late:
        answer = await tools.ask(client, subject, PROMPT | {"prompt": "x"}, headers=headers)
        assert answer["error"]["code"] == "DEADLINE_EXCEEDED"
        assert answer["error"]["retryable"] is False
    assert await tools.metric(port, CALLS) == 0
    refused = 'beamline_runtime_refused_total{extension_id="mock_provider",reason="expired"}'
    assert await tools.metric(port, refused) == 3
    in_time = {"Beamline-Deadline-Ms": "5000", "Beamline-Deadline-At": str(int(time.time() * 1000) + 5000)}
    assert "output" in await tools.ask(client, subject, PROMPT | {"prompt": "x"}, headers=in_time)
    assert await tools.metric(port, CALLS) == 1


async def test_two_replicas_share_requests_and_one_that_is_stopped_loses_none(
    start: Any, client: Any, nats_server: LocalNats, subject: str, tools: Any
) -> None:
    environment = {"NATS_URL": nats_server.url, "NATS_SUBJECT": subject}
    first, second = start("mock_provider", **environment), start("mock_provider", **environment)
    await first.is_ready()
    await second.is_ready()
    body = PROMPT | {"prompt": "x", "config": {"latency_ms": 20}}
    places = asyncio.Semaphore(40)
    stopped = asyncio.Event()

    async def one(number: int) -> bool:
        async with places:
            if number == 250:
                first.terminate()
                stopped.set()
            return "output" in await tools.ask(client, subject, body)

    answers = await asyncio.gather(*(one(number) for number in range(600)))
    assert stopped.is_set()
    assert sum(answers) == 600
    assert await first.exit_code() == 0
    ended = first.event("extension.stopped")
    assert ended is not None
    by_first, by_second = ended["requests"], int(await tools.metric(await second.port(), CALLS))
    assert by_first > 0
    assert by_first + by_second == 600


async def test_every_instance_answers_discovery_for_itself(
    start: Any, client: Any, nats_server: LocalNats, subject: str, tools: Any
) -> None:
    name = f"mock_{subject.rpartition('.')[2]}"
    environment = {"NATS_URL": nats_server.url, "NATS_SUBJECT": subject, "BEAMLINE_EXTENSION_ID": name}
    for _ in range(2):
        await start("mock_provider", **environment).is_ready()
    heard: list[dict[str, Any]] = []

    async def hear(message: Any) -> None:
        heard.append(json.loads(message.data))

    inbox = client.new_inbox()
    listening = await client.subscribe(inbox, cb=hear)
    await client.publish(f"$SRV.PING.{name}", reply=inbox)
    await tools.eventually(lambda: len(heard) == 2, "both instances answered")
    await listening.unsubscribe()
    assert {one["name"] for one in heard} == {name}
    instance = heard[0]["id"]
    assert instance != heard[1]["id"]
    info = await tools.ask(client, f"$SRV.INFO.{name}.{instance}", b"")
    assert info["endpoints"][0] == {
        "name": "handle",
        "subject": subject,
        "queue_group": name,
        "metadata": {},
    }
    schema = json.loads(info["metadata"]["beamline.config_schema"])
    assert schema["properties"]["latency_ms"]["maximum"] == 600_000
    assert (info["version"], info["metadata"]["beamline.type"]) == ("1.1.0", "provider")
    assert "output" in await tools.ask(client, subject, PROMPT | {"prompt": "x"})
    counted = [
        (await tools.ask(client, f"$SRV.STATS.{name}.{one['id']}", b""))["endpoints"][0]["num_requests"]
        for one in heard
    ]
    assert sorted(counted) == [0, 1]


KEYS_OF_NOBODY = {
    f"{api}_{what}": value
    for api in ("OPENAI", "ANTHROPIC", "OPENAI_COMPATIBLE")
    for what, value in {"API_KEY": "sk-nobody", "BASE_URL": "http://127.0.0.1:9"}.items()
}
"""Model providers are ready with these, and their calls find nobody there."""


@pytest.mark.parametrize("level", ["debug", "info"])
async def test_no_payload_is_ever_logged(
    start: Any, client: Any, nats_server: LocalNats, subject: str, *, tools: Any, level: str
) -> None:
    canary = "c4n4ry-in-the-prompt"
    environment = {"NATS_URL": nats_server.url, "LOG_LEVEL": level, **KEYS_OF_NOBODY}
    names = catalogue.names()
    subjects = {name: f"{subject}.{name}" for name in names}
    running = {name: start(name, NATS_SUBJECT=subjects[name], **environment) for name in names}
    bodies = [
        PROMPT | {"prompt": canary, "output": canary, "messages": [{"role": "user", "content": canary}]},
        PROMPT | {"prompt": canary, "output": canary, "config": {canary: canary}},
        PROMPT | {"prompt": {"x": canary}, "output": [canary]},
        f'{{"prompt": "{canary}'.encode(),
    ]
    for name in names:
        await running[name].is_ready()
        replies = [await tools.ask(client, subjects[name], body) for body in bodies]
        answered = any("error" not in reply for reply in replies)
        running[name].terminate()
        assert await running[name].exit_code() == 0
        written = running[name].log.read_text()
        if level == "info":
            assert "request.answered" not in written
        elif answered:
            assert "request.answered" in written
        assert canary not in written


async def test_silent_processes_write_nothing_while_all_is_well(
    start: Any, client: Any, nats_server: LocalNats, subject: str, tools: Any
) -> None:
    running = start("pii_guard", NATS_URL=nats_server.url, NATS_SUBJECT=subject, LOG_SILENT="1")

    async def served() -> bool:
        try:
            await client.request(subject, b'{"prompt": "x"}', timeout=5)
        except NoRespondersError:
            return False
        return True

    await tools.eventually(served, "the guard answered")
    running.terminate()
    assert await running.exit_code() == 0
    assert running.log.read_text() == ""


async def test_without_nats_a_process_waits_says_why_and_serves_once_it_is_there(
    start: Any, own_nats: LocalNats, subject: str, tools: Any
) -> None:
    own_nats.stop()
    running = start("mock_provider", NATS_URL=own_nats.url, NATS_SUBJECT=subject)
    port = await running.port()

    async def says(status: int, word: str) -> bool:
        answer = await tools.get(port, "/readyz")
        return bool(answer[0] == status and word in answer[1])

    await tools.eventually(lambda: says(503, "no NATS server answers at"), "it says why it is not ready")
    assert (await tools.get(port, "/healthz"))[0] == 200
    own_nats.start()
    await tools.eventually(lambda: says(200, "ok"), "it becomes ready")
    own_nats.stop()
    await tools.eventually(lambda: says(503, "Disconnected"), "it says that it lost NATS")
    own_nats.start()
    await tools.eventually(lambda: says(200, "ok"), "it is ready again")
    refusals = [line for line in running.lines() if line["event"] == "nats.error"]
    refused = [line for line in refusals if line["error"] == "ConnectionRefusedError"]
    assert len(refused) <= 2, "an outage is one line per kind of error, however many attempts fail"
    running.terminate()
    assert await running.exit_code() == 0


async def test_a_taken_port_is_one_clear_sentence(start: Any, nats_server: LocalNats, subject: str) -> None:
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        port = taken.getsockname()[1]
        running = start(
            "mock_provider", NATS_URL=nats_server.url, NATS_SUBJECT=subject, METRICS_PORT=str(port)
        )
        assert await running.exit_code() == 2
    assert [line["error"] for line in running.lines()] == [
        f"port {port} for metrics and health is taken: "
        "set METRICS_PORT to another one (0 chooses a free port)"
    ]


async def test_a_wrong_environment_ends_with_one_line_and_status_two(start: Any) -> None:
    running = start("mock_provider", NATS_SUBJECT="beamline.>")
    assert await running.exit_code() == 2
    [line] = running.lines()
    assert line["event"] == "extension.refused"
    assert line["error"].startswith("NATS_SUBJECT must be")
    unknown = start("nothing")
    assert await unknown.exit_code() == 2
    assert "no extension is called 'nothing'" in unknown.log.read_text()


async def test_the_four_extensions_do_their_part_of_the_quickstart(
    start: Any, client: Any, nats_server: LocalNats, subject: str, tools: Any
) -> None:
    for name in catalogue.names():
        start(name, NATS_URL=nats_server.url, NATS_SUBJECT=f"{subject}.{name}")

    async def ask(name: str, **body: Any) -> Any:
        async def answered() -> Any:
            try:
                return await tools.ask(client, f"{subject}.{name}", PROMPT | body)
            except NoRespondersError:
                return None

        return await tools.eventually(answered, f"{name} answered")

    tidy = await ask("normalize_text", prompt="  Write to   Jane@Example.com ", config={"lowercase": True})
    assert tidy == {"prompt": "write to jane@example.com"}
    cards = {"patterns": ["credit_card", "ssn"], "block_on_match": True}
    assert await ask("pii_guard", prompt=tidy["prompt"], config=cards) == {"verdict": "pass"}
    refused = await ask("pii_guard", prompt="my card is 4111 1111 1111 1111", config=cards)
    assert (refused["verdict"], refused["details"]) == ("reject", {"kinds": ["credit_card"], "count": 1})
    echoed = await ask("mock_provider", prompt=tidy["prompt"], config={"mode": "echo"})
    masked = await ask(
        "mask_sensitive_data", output=echoed["output"], config={"mask_patterns": ["email", "phone"]}
    )
    assert masked == {"output": "Mock response to: write to [EMAIL] [provider=mock_provider]"}


async def test_the_first_extension_of_the_docs_runs_as_it_is_printed(
    start: Any, client: Any, nats_server: LocalNats, tools: Any, tmp_path: Path
) -> None:
    page = PAGE.read_text()
    code, expected = (
        re.search(r"```python\n(.*?)```", page, re.DOTALL),
        re.search(r"```json reply\n(.*?)```", page, re.DOTALL),
    )
    request = re.search(r"```json request (\S+)\n(.*?)```", page, re.DOTALL)
    assert code
    assert expected
    assert request
    assert sum(bool(line.strip()) for line in code[1].splitlines()) <= 15
    script = tmp_path / "shout.py"
    script.write_text(code[1])
    running = start("-W", "error", str(script), NATS_URL=nats_server.url)
    await running.is_ready()
    assert await tools.ask(client, request[1], request[2].encode()) == json.loads(expected[1])
    running.terminate()
    assert await running.exit_code() == 0
