"""Where connections go: to addresses that were judged, and never after a redirect."""

from __future__ import annotations

from typing import Any

import pytest

from beamline_extensions.openai_compatible.extension import OpenAICompatibleProvider
from beamline_sdk import ExtensionError, ExtensionRequest, NotReadyError, Setup
from harness.model_api import FakeApi, error


class Dns:
    """A resolver whose name has another answer each time, as one that rebinds has."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


async def ask(api: FakeApi, dns: Dns, *, times: int = 1, **environment: str) -> list[str]:
    """Asks a name that ``dns`` resolves, at the fake's port; gives the codes or outputs."""
    url = f"http://llm.example:{api.port}/v1"
    provider = OpenAICompatibleProvider({"BEAMLINE_ALLOWED_BASE_URLS": url, **environment}, resolver=dns)
    await provider.initialize(Setup("x", {"base_url": url}))
    config = provider.config_model(model="m", base_url=url)
    got = []
    for _ in range(times):
        try:
            got.append((await provider.handle(ExtensionRequest(prompt="Hi"), config)).output)
        except ExtensionError as failure:
            got.append(f"{failure.code.value} {failure.retryable}")
    await provider.stop()
    return got


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "::1", "::ffff:127.0.0.1", "10.0.0.1", "169.254.169.254", "fe80::1", "0.0.0.0"],
)
async def test_a_name_that_leads_inside_is_not_connected_to(api: FakeApi, address: str) -> None:
    assert await ask(api, Dns([address])) == ["PERMISSION_DENIED False"]
    assert api.connections == 0


async def test_one_bad_address_among_good_ones_is_enough(api: FakeApi) -> None:
    assert await ask(api, Dns(["104.18.7.192", "127.0.0.1"])) == ["PERMISSION_DENIED False"]
    assert api.connections == 0


async def test_a_name_is_resolved_once_for_a_connection_and_judged_each_time(api: FakeApi) -> None:
    opened = {"BEAMLINE_ALLOWED_NETWORKS": "127.0.0.0/8"}
    dns = Dns(["127.0.0.1"], ["169.254.169.254"])
    assert await ask(api, dns, times=2, **opened) == ["Hello there", "Hello there"]
    assert dns.asked == ["llm.example"]
    api.says(error(500, "x", "connection: close"))
    rebinding = Dns(["127.0.0.1"], ["169.254.169.254"])
    assert await ask(api, rebinding, times=2, **opened) == ["UNAVAILABLE True", "PERMISSION_DENIED False"]
    assert rebinding.asked == ["llm.example", "llm.example"]


async def test_the_metadata_service_stays_closed_when_everything_is_opened(api: FakeApi) -> None:
    got = await ask(api, Dns(["169.254.169.254"]), BEAMLINE_ALLOWED_NETWORKS="0.0.0.0/0,private")
    assert got == ["PERMISSION_DENIED False"]


async def test_a_redirect_is_not_followed(api: FakeApi) -> None:
    api.says(error(307, "x", f"location: http://127.0.0.1:{api.port}/v1/elsewhere"))
    opened = {"BEAMLINE_ALLOWED_NETWORKS": "private"}
    assert await ask(api, Dns(["127.0.0.1"]), **opened) == ["UNAVAILABLE False"]
    assert [seen.path for seen in api.seen] == ["/v1/chat/completions"]


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest",
        "http://[::1]:1/v1",
        "http://0x7f.1/v1",
        "https://llm.example@evil.example/v1",
        "https://llm.example./v1",
        "https://evil.example/v1",
    ],
)
async def test_a_configuration_with_another_place_is_refused_at_start_and_by_request(url: str) -> None:
    variables = {"BEAMLINE_ALLOWED_BASE_URLS": "https://llm.example/v1"}
    provider = OpenAICompatibleProvider(variables)
    with pytest.raises(NotReadyError, match="BaseUrlNotAllowed"):
        await provider.initialize(Setup("x", {"base_url": url}))
    await provider.initialize(Setup("x", {}))
    config: Any = provider.config_model.model_construct(model="m", base_url=url)
    complete = provider.config_model(model="m").model_copy(update={"base_url": config.base_url})
    with pytest.raises(ExtensionError) as raised:
        await provider.handle(ExtensionRequest(prompt="Hi"), complete)
    await provider.stop()
    assert raised.value.code.value == "INTERNAL"
    assert not raised.value.retryable


async def test_environment_proxies_are_not_used(api: FakeApi, monkeypatch: Any) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    opened = {"BEAMLINE_ALLOWED_NETWORKS": "private"}
    assert await ask(api, Dns(["127.0.0.1"]), **opened) == ["Hello there"]
