"""Keys: one that is refused or limited rests while another works, and a rotated file is read again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from beamline_extensions.openai.extension import OpenAIProvider
from beamline_sdk import ExtensionError, ExtensionRequest, NotReadyError, Setup
from harness.model_api import FakeApi, error, silence

CONFIG = OpenAIProvider.config_model(model="gpt-4")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Bench:
    """A provider with keys and a clock of the test's own."""

    def __init__(self, api: FakeApi, **environment: str) -> None:
        self.clock = Clock()
        self.registry = CollectorRegistry()
        variables = {"OPENAI_BASE_URL": f"{api.url}/v1", "BEAMLINE_KEYS_DIR": "/nonexistent", **environment}
        self.provider = OpenAIProvider(variables, clock=self.clock)

    async def __aenter__(self) -> Bench:
        await self.provider.initialize(Setup("x", {}, self.registry))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.provider.stop()

    async def ask(self) -> str:
        return (await self.provider.handle(ExtensionRequest(prompt="Hi"), CONFIG)).output


@pytest.mark.parametrize("status", [401, 429])
async def test_the_next_key_answers_when_one_is_not_taken(api: FakeApi, status: int) -> None:
    api.says(error(status, "x", "retry-after: 20"))
    async with Bench(api, OPENAI_API_KEY="first,second") as bench:
        assert await bench.ask() == "Hello there"
        assert await bench.ask() == "Hello there"
        assert [seen.key for seen in api.seen] == ["first", "second", "second"]
        bench.clock.now += 21 if status == 429 else 301
        await bench.ask()
    assert api.seen[-1].key == "first"


async def test_when_all_keys_are_limited_the_caller_hears_when_the_first_is_back(api: FakeApi) -> None:
    api.says(error(429, "x", "retry-after: 20"), error(429, "x", "retry-after: 9"))
    async with Bench(api, OPENAI_API_KEY="first,second") as bench:
        with pytest.raises(ExtensionError):
            await bench.ask()
        with pytest.raises(ExtensionError) as raised:
            await bench.ask()
    assert len(api.seen) == 2
    assert raised.value.code.value == "RESOURCE_EXHAUSTED"
    assert raised.value.retry_after_ms == pytest.approx(9_000, abs=2)


async def test_when_all_keys_are_refused_the_process_says_so(api: FakeApi) -> None:
    api.says(error(401), error(401))
    async with Bench(api, OPENAI_API_KEY="first,second") as bench:
        for _ in range(2):
            with pytest.raises(ExtensionError) as raised:
                await bench.ask()
            assert raised.value.code.value == "UNAUTHENTICATED"
        assert len(api.seen) == 2
        reason = await bench.provider.health_check()
        assert reason == "CredentialsMissing: the API did not accept any key of OPENAI_API_KEY"


@pytest.mark.parametrize("status", [400, 403, 500, 529])
async def test_no_other_failure_costs_a_second_call(api: FakeApi, status: int) -> None:
    api.says(error(status))
    async with Bench(api, OPENAI_API_KEY="first,second") as bench:
        with pytest.raises(ExtensionError):
            await bench.ask()
    assert len(api.seen) == 1


async def test_a_single_key_that_was_refused_is_asked_again(api: FakeApi) -> None:
    api.says(error(401))
    async with Bench(api, OPENAI_API_KEY="only") as bench:
        with pytest.raises(ExtensionError):
            await bench.ask()
        assert await bench.provider.health_check() is not None
        assert await bench.ask() == "Hello there"
        assert await bench.provider.health_check() is None


async def test_a_rotated_file_is_used_without_a_restart(api: FakeApi, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("old\n")
    async with Bench(api, OPENAI_API_KEY_FILE=str(file), OPENAI_API_KEY="ignored") as bench:
        await bench.ask()
        (tmp_path / "next").write_text("new\n")
        (tmp_path / "next").replace(file)
        bench.clock.now += 2
        await bench.ask()
        file.unlink()  # in the middle of a rotation there may be none for a moment
        bench.clock.now += 2
        await bench.ask()
    assert [seen.key for seen in api.seen] == ["old", "new", "new"]


async def test_a_mounted_secret_is_found_by_convention(api: FakeApi, tmp_path: Path) -> None:
    (tmp_path / "OPENAI_API_KEY").write_text("mounted")
    async with Bench(api, BEAMLINE_KEYS_DIR=str(tmp_path)) as bench:
        await bench.ask()
    assert api.seen[0].key == "mounted"


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({}, "CredentialsMissing: OPENAI_API_KEY is not set"),
        ({"OPENAI_API_KEY": " "}, "CredentialsMissing: OPENAI_API_KEY is not set"),
        ({"OPENAI_API_KEY": "schlüssel"}, "CredentialsMissing: OPENAI_API_KEY holds characters"),
        (
            {"OPENAI_API_KEY_FILE": "/nonexistent/k"},
            r"CredentialsMissing: OPENAI_API_KEY_FILE \(/nonexistent/k\) does",
        ),
        ({"OPENAI_API_KEY": "k", "BEAMLINE_ALLOWED_BASE_URLS": "ftp://x"}, "BEAMLINE_ALLOWED_BASE_URLS"),
        ({"OPENAI_API_KEY": "k", "BEAMLINE_ALLOWED_NETWORKS": "10.0.0.0/99"}, "BEAMLINE_ALLOWED_NETWORKS"),
    ],
    ids=["no key", "a blank key", "a key that is none", "no file", "a bad list", "bad networks"],
)
async def test_what_is_missing_is_one_clear_sentence(
    api: FakeApi, environment: dict[str, str], says: str
) -> None:
    with pytest.raises(NotReadyError, match=says):
        async with Bench(api, **environment):
            pass


async def test_a_key_never_shows(api: FakeApi, capsys: Any) -> None:
    api.says(error(401, message="Incorrect API key: first-canary"), error(429), silence)
    async with Bench(api, OPENAI_API_KEY="first-canary,second-canary") as bench:
        with pytest.raises(ExtensionError) as raised:
            await bench.ask()
        shown = f"{raised.value} {raised.value.details} {bench.provider._keys._keys} {capsys.readouterr()}"
    assert "canary" not in shown
