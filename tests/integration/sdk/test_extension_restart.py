"""A restart in place, through the registry: no request is lost, and a failing one is said and repaired."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import pytest

from beamline_cli.local.nats import LocalNats
from beamline_sdk import (
    Config,
    ExtensionRequest,
    NotReadyError,
    Provider,
    ProviderReply,
    Setup,
    hosting,
    runtime,
)
from beamline_sdk.runtime import serve
from beamline_sdk.settings import RuntimeSettings

BODY = {"prompt": "x", "trace_id": "t", "request_id": "r", "tenant_id": "a", "parameters": {}, "context": {}}


class Settings(Config):
    pass


class Keyed(Provider[Settings]):
    """Reads its key when it is initialized, as one that was rotated asks for."""

    name = "keyed"
    config_model = Settings

    def __init__(self) -> None:
        self.key: str | None = "first"
        self.held: str | None = None
        self.life: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def initialize(self, setup: Setup) -> None:
        self.life.append("initialize")
        if self.key is None:
            raise NotReadyError("CredentialsMissing", "KEYED_API_KEY is not set")
        self.held = self.key

    async def start(self) -> None:
        self.life.append("start")

    async def handle(self, request: ExtensionRequest, config: Settings) -> ProviderReply:
        await self.gate.wait()
        assert self.held is not None
        return ProviderReply(self.held)

    async def stop(self) -> None:
        self.life.append("stop")

    async def dispose(self) -> None:
        self.life.append("dispose")
        self.held = None


class Served:
    def __init__(self, extension: Keyed, url: str, subject: str) -> None:
        self.extension = extension
        self.stop, self.restart, self.ready = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.ports: list[int] = []
        settings = RuntimeSettings(
            nats_url=url, nats_subject=subject, metrics_port=0, metrics_host="127.0.0.1", grace_s=5
        )
        self.task = asyncio.create_task(
            serve(
                extension, settings, stop=self.stop, ready=self.ready.set, on_listening=self.ports.append,
                restart=self.restart,
            )
        )  # fmt: skip

    async def end(self) -> None:
        self.stop.set()
        await asyncio.wait_for(self.task, 20)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "INITIALIZE_RETRY_SECONDS", 0.05)


async def test_requests_wait_while_the_extension_is_restarted_and_none_is_lost(
    client: Any, nats_server: LocalNats, subject: str, tools: Any
) -> None:
    keyed = Keyed()
    served = Served(keyed, nats_server.url, subject)
    await asyncio.wait_for(served.ready.wait(), 20)
    keyed.gate.clear()
    before = [asyncio.create_task(tools.ask(client, subject, BODY)) for _ in range(3)]
    metric = 'beamline_runtime_in_flight{extension_id="keyed"}'
    port = served.ports[0]

    async def three_at_work() -> bool:
        return bool(await tools.metric(port, metric) == 3)

    await tools.eventually(three_at_work, "three are at work")
    keyed.key = "second"
    served.restart.set()

    async def restarting() -> bool:
        return "Restarting" in (await tools.get(port, "/readyz"))[1]

    await tools.eventually(restarting, "it says that it restarts")
    during = [asyncio.create_task(tools.ask(client, subject, BODY)) for _ in range(3)]
    await client.flush()
    assert keyed.life == ["initialize", "start"], "what is at work is waited for"
    keyed.gate.set()
    assert [one["output"] for one in await asyncio.gather(*before)] == ["first"] * 3
    assert [one["output"] for one in await asyncio.gather(*during)] == ["second"] * 3
    await served.end()
    assert keyed.life == [
        "initialize", "start", "stop", "dispose", "initialize", "start", "stop", "dispose",
    ]  # fmt: skip


@pytest.mark.usefixtures("quick")
async def test_an_extension_that_can_not_come_back_refuses_and_says_why_until_it_can(
    client: Any, nats_server: LocalNats, subject: str, tools: Any
) -> None:
    keyed = Keyed()
    served = Served(keyed, nats_server.url, subject)
    await asyncio.wait_for(served.ready.wait(), 20)
    keyed.key = None
    served.restart.set()

    async def says(words: str) -> bool:
        return words in (await tools.get(served.ports[0], "/readyz"))[1]

    await tools.eventually(
        lambda: says("CredentialsMissing: KEYED_API_KEY is not set"), "it says what is missing"
    )

    async def answer() -> Any:
        return await tools.ask(client, subject, BODY)

    async def refused() -> bool:
        return bool((await answer()).get("error", {}).get("code") == "UNAVAILABLE")

    await tools.eventually(refused, "requests are refused")
    keyed.key = "third"
    await tools.eventually(lambda: says('"ok"'), "it is back")
    assert (await answer())["output"] == "third"
    await served.end()


async def test_an_extension_that_never_ends_does_not_hold_up_the_end(
    nats_server: LocalNats, subject: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (runtime, hosting):
        monkeypatch.setattr(module, "STOP_SECONDS", 0.2)

    class Stubborn(Keyed):
        async def stop(self) -> None:
            while True:
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    if len(self.life) > 20:
                        raise
                    self.life.append("not yet")

    stubborn = Stubborn()
    served = Served(stubborn, nats_server.url, subject)
    await asyncio.wait_for(served.ready.wait(), 20)
    await served.end()
    stubborn.life.extend(["enough"] * 21)
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()


async def test_a_process_restarts_its_extension_on_sighup_and_goes_on(
    start: Any, client: Any, nats_server: LocalNats, subject: str, tools: Any
) -> None:
    running = await start("mock_provider", NATS_URL=nats_server.url, NATS_SUBJECT=subject).is_ready()
    running.process.send_signal(signal.SIGHUP)
    await tools.eventually(lambda: running.event("extension.restarted"), "it has restarted")
    assert "output" in await tools.ask(client, subject, BODY)
    registered = running.event("provider.registered")
    assert registered is not None
    assert (registered["provider"], registered["extension_id"]) == ("mock_provider", "mock_provider")
    running.terminate()
    assert await running.exit_code() == 0
