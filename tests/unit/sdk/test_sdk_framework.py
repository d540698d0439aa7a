"""The provider framework: configuration, life, results, factory. No network and no clock."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import SecretStr, ValidationError

from beamline_sdk import Config, ExtensionError, ExtensionRequest, ProviderReply, provider
from beamline_sdk.framework import (
    KINDS,
    BaseProvider,
    ConfigurationError,
    ExtensionProvider,
    HostedExtension,
    ProviderConfig,
    ProviderFactory,
    SDKConfig,
    SDKProvider,
    UnknownProviderError,
    load_config,
    read_file,
)
from beamline_sdk.framework.hosted import ExtensionProviderConfig

KEY = {"api_endpoint": "https://api.example.com/v1", "api_key": "sk-secret"}


class Weather(SDKProvider[SDKConfig]):
    """An API whose answers the test sets."""

    provider_type: ClassVar[str] = "weather"

    def __init__(self, config: SDKConfig, **options: Any) -> None:
        super().__init__(config, **options)
        self.answers: list[Any] = []
        self.sent: list[tuple[str, str]] = []
        self.accepted = True

    async def send(self, operation: str, payload: Mapping[str, Any], request_id: str) -> Any:
        self.sent.append((operation, request_id))
        answer = self.answers.pop(0) if self.answers else {"sky": "blue"}
        if isinstance(answer, BaseException):
            raise answer
        return await answer() if callable(answer) else answer

    async def authenticate(self) -> bool:
        return self.accepted

    def get_capabilities(self) -> tuple[str, ...]:
        return ("forecast",)


def weather(**fields: Any) -> Weather:
    return Weather(SDKConfig(name="weather", version="1.0.0", **KEY, **fields))


def test_the_defaults_are_those_of_the_contract() -> None:
    base = ProviderConfig(name="one", version="1.0.0")
    assert (base.enabled, base.timeout_ms, base.retry_attempts) == (True, 5000, 0)
    sdk = SDKConfig(name="one", version="1.0.0", **KEY)
    assert (sdk.timeout_ms, sdk.rate_limit, sdk.retry_attempts) == (10_000, 100, 0)


def test_a_key_is_in_no_text_about_its_configuration() -> None:
    config = SDKConfig(name="one", version="1.0.0", **KEY)
    assert isinstance(config.api_key, SecretStr)
    assert "sk-secret" not in f"{config!r} {config} {config.model_dump()} {config.model_dump_json()}"
    with pytest.raises(ValidationError) as caught:
        SDKConfig(name="one", version="1.0.0", api_endpoint="ftp://sk-secret@x", api_key="")
    assert "sk-secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        pytest.param(
            {"api_endpoint": "https://user:pass@host"}, "api_endpoint", id="user and password in the URL"
        ),
        pytest.param({"api_endpoint": "file:///etc/passwd"}, "api_endpoint", id="no HTTP"),
        pytest.param({"api_key": "  "}, "api_key", id="an empty key"),
        pytest.param({"rate_limit": 0}, "rate_limit", id="nothing allowed"),
        pytest.param({"timeout": 5}, "timeout", id="a field that is none"),
    ],
)
def test_what_an_api_can_not_be_reached_by_is_refused_with_its_path(
    fields: dict[str, Any], path: str
) -> None:
    with pytest.raises(ConfigurationError, match=rf"config\.{path}: "):
        load_config(SDKConfig, "one", file={**KEY, **fields})


async def test_a_request_gets_its_id_before_it_is_sent_and_keeps_it() -> None:
    one = weather()
    response = await one.make_request("forecast", {"city": "Bern"})
    assert (response.success, response.data, response.error) == (True, {"sky": "blue"}, None)
    assert one.sent == [("forecast", response.request_id)]
    one.answers = [ConnectionResetError("sk-secret in the text")]
    failed = await one.make_request("forecast", {})
    assert one.sent[1] == ("forecast", failed.request_id)
    assert failed.request_id != response.request_id
    assert failed.error is not None
    assert (failed.success, failed.data, failed.error.code.value) == (False, None, "INTERNAL")
    assert "sk-secret" not in repr(failed)


async def test_what_an_author_raises_on_purpose_reaches_the_caller_as_it_is() -> None:
    one = weather()
    one.answers = [ExtensionError("RESOURCE_EXHAUSTED", "slow down", retry_after_ms=700)]
    error = (await one.make_request("forecast", {})).error
    assert error is not None
    assert (error.code.value, error.message, error.retry_after_ms) == ("RESOURCE_EXHAUSTED", "slow down", 700)


async def test_a_call_that_takes_too_long_is_a_deadline_and_not_tried_again() -> None:
    one = weather(timeout_ms=1, retry_attempts=3)
    one.answers = [asyncio.Event().wait]
    error = (await one.make_request("forecast", {})).error
    assert error is not None
    assert (error.code.value, error.retryable, len(one.sent)) == ("DEADLINE_EXCEEDED", False, 1)


@pytest.mark.parametrize(
    ("attempts", "calls", "success"), [(0, 1, False), (1, 2, False), (2, 3, True), (5, 3, True)]
)
async def test_retries_are_those_that_the_configuration_allows(
    attempts: int, calls: int, success: bool
) -> None:
    one = weather(retry_attempts=attempts)
    one.answers = [ExtensionError("UNAVAILABLE", "away"), ExtensionError("UNAVAILABLE", "away")]
    response = await one.make_request("forecast", {})
    assert (len(one.sent), response.success) == (calls, success)
    assert len({request_id for _, request_id in one.sent}) == 1


async def test_a_client_fault_is_not_tried_again() -> None:
    one = weather(retry_attempts=5)
    one.answers = [ExtensionError("INVALID_ARGUMENT", "no such city")]
    assert not (await one.make_request("forecast", {})).success
    assert len(one.sent) == 1


async def test_the_limit_per_minute_refuses_here_and_says_when_to_come_back() -> None:
    now = 100.0
    one = Weather(SDKConfig(name="weather", version="1", **KEY, rate_limit=2), clock=lambda: now)
    first = [await one.make_request("forecast", {}) for _ in range(3)]
    assert [response.success for response in first] == [True, True, False]
    error = first[2].error
    assert error is not None
    assert (error.code.value, error.retry_after_ms, len(one.sent)) == ("RESOURCE_EXHAUSTED", 60_001, 2)
    now = 160.0
    assert (await one.make_request("forecast", {})).success


async def test_a_refused_key_is_an_error_of_initialize() -> None:
    one = weather()
    one.accepted = False
    with pytest.raises(ExtensionError, match="refuses the key") as caught:
        await one.initialize()
    assert caught.value.code.value == "UNAUTHENTICATED"


class Life(BaseProvider[ProviderConfig]):
    """Notes its life, and fails where it is told to."""

    kind = "storage"
    provider_type: ClassVar[str] = "life"
    health_seconds = 0.01

    def __init__(self, config: ProviderConfig) -> None:
        super().__init__(config)
        self.lived: list[str] = []
        self.health: Any = None

    async def open(self) -> None:
        self.lived.append("open")

    async def check(self) -> str | None:
        if isinstance(self.health, Exception):
            raise self.health
        return await self.health() if callable(self.health) else self.health  # type: ignore[no-any-return]

    async def close(self) -> None:
        self.lived.append("close")
        raise RuntimeError("can't close")


async def test_cleanup_never_raises_and_the_life_may_begin_again() -> None:
    one = Life(ProviderConfig(name="one", version="1"))
    await one.initialize()
    await one.initialize()
    await one.cleanup()
    await one.cleanup()
    await one.initialize()
    assert one.lived == ["open", "close", "close", "open"]


@pytest.mark.parametrize(
    ("health", "status", "words"),
    [
        pytest.param(None, "healthy", "", id="nothing is wrong"),
        pytest.param("the disk is full", "unhealthy", "the disk is full", id="it says what is wrong"),
        pytest.param(
            ValueError("secret"), "error", "the health check failed: ValueError", id="the check breaks"
        ),
        pytest.param(asyncio.Event().wait, "unhealthy", "did not answer in time", id="the check hangs"),
    ],
)
async def test_health_is_one_of_three_words_and_never_an_exception(
    health: Any, status: str, words: str
) -> None:
    one = Life(ProviderConfig(name="one", version="1"))
    one.health = health
    found = await one.health_check()
    assert found.status == status
    assert words in found.message
    assert "secret" not in found.message


def test_run_time_wins_over_environment_over_file_over_defaults() -> None:
    environ = {"BEAMLINE_MY_API_TIMEOUT_MS": "2000", "BEAMLINE_MY_API_RATE_LIMIT": "", "OTHER": "x"}
    file = {**KEY, "timeout_ms": 1000, "rate_limit": 7}
    from_file = load_config(SDKConfig, "my-api", file=file)
    assert (from_file.timeout_ms, from_file.rate_limit, from_file.retry_attempts) == (1000, 7, 0)
    from_environment = load_config(SDKConfig, "my-api", file=file, environ=environ)
    assert (from_environment.timeout_ms, from_environment.rate_limit) == (2000, 7)
    set_now = load_config(SDKConfig, "my-api", file=file, environ=environ, overrides={"timeout_ms": 3000})
    assert set_now.timeout_ms == 3000
    assert set_now.name == "my-api"


def test_objects_in_the_environment_are_json() -> None:
    environ = {"BEAMLINE_API_PARAMETERS": '{"model": "m"}', "BEAMLINE_API_ENABLED": "false"}
    config = load_config(SDKConfig, "api", file=KEY, environ=environ)
    assert (config.parameters, config.enabled) == ({"model": "m"}, False)


def test_a_file_says_where_a_key_is_and_not_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("from-file\n")
    entry = {"api_endpoint": "https://x", "api_key_file": str(tmp_path / "key")}
    assert load_config(SDKConfig, "x", file=entry).api_key.get_secret_value() == "from-file"
    entry = {"api_endpoint": "https://x", "api_key_env": "X_KEY"}
    config = load_config(SDKConfig, "x", file=entry, environ={"X_KEY": "from-env"})
    assert config.api_key.get_secret_value() == "from-env"
    with pytest.raises(ConfigurationError, match="X_KEY is not set"):
        load_config(SDKConfig, "x", file=entry)
    with pytest.raises(ConfigurationError, match="can't be read"):
        load_config(SDKConfig, "x", file={"api_key_file": str(tmp_path / "none")})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("providers: [{name: a}, {name: b}]", "", id="YAML"),
        pytest.param(json.dumps({"providers": [{"name": "a"}, {"name": "b"}]}), "", id="JSON"),
        pytest.param("providers: {a: 1}", "must be a list of objects", id="no list"),
        pytest.param("- a\n- b", "must be a list of objects", id="no object"),
        pytest.param("a: [", "line 1: not YAML or JSON", id="half a document"),
        pytest.param(
            "!!python/object/apply:os.system ['true']", "not YAML or JSON", id="a document that runs code"
        ),
        pytest.param(None, "can't be read", id="no file"),
    ],
)
def test_a_file_of_providers_is_read_or_refused_with_its_path(
    tmp_path: Path, text: str | None, words: str
) -> None:
    path = tmp_path / "providers.yaml"
    if text is not None:
        path.write_text(text)
    if not words:
        assert [entry["name"] for entry in read_file(path)] == ["a", "b"]
        return
    with pytest.raises(ConfigurationError, match=words) as caught:
        read_file(path)
    assert str(path) in str(caught.value)


def test_a_factory_knows_four_kinds_and_what_was_added_to_it_alone() -> None:
    factory, other = ProviderFactory(), ProviderFactory()
    factory.add(Weather)
    factory.add(Life)
    assert tuple(factory.get_available_providers()) == KINDS == ("deployment", "sdk", "monitoring", "storage")
    assert factory.get_available_providers() == {
        "deployment": ("kubernetes", "process"),
        "sdk": ("weather",),
        "monitoring": (),
        "storage": ("life",),
    }
    assert other.get_available_providers()["sdk"] == ()
    made = factory.create("sdk", "weather", {"name": "w", "version": "1", **KEY})
    assert isinstance(made, Weather)
    factory.remove("sdk", "weather")
    with pytest.raises(UnknownProviderError, match="no sdk provider is of type 'weather': there are none"):
        factory.create("sdk", "weather", {})


@pytest.mark.parametrize(
    ("kind", "provider_type", "config", "error", "words"),
    [
        (
            "toaster",
            "x",
            {},
            UnknownProviderError,
            "no kind of provider is called 'toaster': there are deployment",
        ),
        ("deployment", "swarm", {}, UnknownProviderError, "there are kubernetes, process"),
        (
            "deployment",
            "process",
            {"name": "a", "version": "1", "replicas": -1},
            ConfigurationError,
            "config.replicas",
        ),
        ("deployment", "process", {"version": "1"}, ConfigurationError, "config.name: Field required"),
    ],
)
def test_a_factory_says_what_it_can_not_make(
    kind: str, provider_type: str, config: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        ProviderFactory().create(kind, provider_type, config)


class Shout(Config):
    suffix: str = "!"


@provider
async def shout(request: ExtensionRequest, config: Shout) -> ProviderReply:
    return ProviderReply((request.prompt or "").upper() + config.suffix, prompt_tokens=1)


async def test_an_extension_answers_make_request_as_it_answers_a_router() -> None:
    config = ExtensionProviderConfig(name="loud", version="1", parameters={"suffix": "?"})
    one = ExtensionProvider(shout, config)
    await one.initialize()
    assert await one.authenticate()
    response = await one.make_request("chat", {"prompt": "hello", "trace_id": "t"})
    assert response.success
    assert response.data["output"] == "HELLO?"
    assert (response.data["provider_id"], response.data["metadata"]["trace_id"]) == ("loud", "t")
    assert one.get_capabilities() == ("chat",)
    for operation, payload, code in (
        ("chat", {}, "INVALID_ARGUMENT"),
        ("dance", {"prompt": "x"}, "NOT_FOUND"),
    ):
        error = (await one.make_request(operation, payload)).error
        assert error is not None
        assert error.code.value == code
    await one.cleanup()


def test_only_a_provider_can_be_an_sdk_provider() -> None:
    hosted = HostedExtension(shout)
    assert (hosted.name, hosted.get_capabilities(), hosted.metadata()["type"]) == (
        "shout",
        ("provider",),
        "provider",
    )
