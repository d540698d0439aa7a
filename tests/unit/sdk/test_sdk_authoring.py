"""What an author may write, what the environment may say, and what a log line holds."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import pytest
import structlog

from beamline_contract.names import EXTENSION_TYPES
from beamline_sdk import (
    Config,
    Delta,
    ExtensionRequest,
    Patch,
    ProviderReply,
    Verdict,
    logs,
    post,
    pre,
    provider,
    validator,
)
from beamline_sdk.answers import CallStats
from beamline_sdk.discovery import Service
from beamline_sdk.extension import AnyConfig
from beamline_sdk.link import LinkSettings, reconnect_delay
from beamline_sdk.settings import RuntimeSettings, SettingsError


class Suffix(Config):
    suffix: str = "!"


@pre
async def shout(request: ExtensionRequest, config: Suffix) -> Patch:
    """Writes the prompt in capitals.

    More words.
    """
    return Patch(prompt=(request.prompt or "").upper() + config.suffix)


async def test_a_decorated_function_is_an_extension_that_says_what_it_is() -> None:
    assert (shout.name, shout.kind, shout.description) == ("shout", "pre", "Writes the prompt in capitals.")
    assert shout.config_model is Suffix
    assert shout.config_schema()["properties"]["suffix"]["default"] == "!"
    patch = await shout.handle(ExtensionRequest(prompt="a"), Suffix(suffix="?"))
    assert patch.to_wire() == {"prompt": "A?"}


def _call(**function: str) -> dict[str, Any]:
    return {"tool_calls": [{"index": 1, "id": "b", "function": function}]}


WHOLE: dict[str, tuple[list[Any], str, dict[str, Any]]] = {
    "text alone": (["a", Delta("b"), ProviderReply("c", metadata={"x": 1})], "abc", {"x": 1}),
    "a tool call in pieces": (
        [
            Delta(message=_call(name="f", arguments="")),
            Delta(message=_call(arguments='{"n":')),
            "a",
            Delta("b", message=_call(arguments="1}")),
            ProviderReply("", metadata={"x": 1}),
        ],
        "ab",
        {
            "x": 1,
            "message": {"tool_calls": [{"id": "b", "function": {"name": "f", "arguments": '{"n":1}'}}]},
        },
    ),
    "a message that the end says again": (
        [
            Delta(message={"refusal": "n"}),
            Delta(message={"refusal": "o"}),
            ProviderReply("", metadata={"message": {"refusal": "no"}}),
        ],
        "",
        {"message": {"refusal": "no"}},
    ),
    "a message that only the end says": (
        [ProviderReply("", metadata={"message": {"refusal": "no"}})],
        "",
        {"message": {"refusal": "no"}},
    ),
}


@pytest.mark.parametrize(("parts", "output", "metadata"), WHOLE.values(), ids=WHOLE.keys())
async def test_a_generators_answer_in_one_piece_is_all_that_it_says(
    parts: list[Any], output: str, metadata: dict[str, Any]
) -> None:
    @provider
    async def saying(request: ExtensionRequest, config: Config) -> AsyncGenerator[Any, None]:
        for part in parts:
            yield part

    reply = await saying.handle(ExtensionRequest(prompt="x"), Config())
    assert (reply.output, reply.metadata) == (output, metadata)


def test_each_decorator_makes_its_kind_and_takes_a_name() -> None:
    async def handler(request: ExtensionRequest, config: Any) -> Verdict:
        return Verdict.ok()

    made = [
        decorate(name=f"my_{kind}", version="2.0.0")(handler)
        for kind, decorate in zip(EXTENSION_TYPES, (pre, validator, provider, post), strict=True)
    ]
    assert [(one.kind, one.name, one.version) for one in made] == [
        (kind, f"my_{kind}", "2.0.0") for kind in EXTENSION_TYPES
    ]
    assert made[0].config_model is AnyConfig


def test_a_function_that_can_not_be_an_extension_is_told_why() -> None:
    def blocking(request: object, config: object) -> None: ...

    async def too_many(request: object, config: object, more: object) -> None: ...

    with pytest.raises(TypeError, match="blocking must be an async function"):
        pre(blocking)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="too_many must take two arguments"):
        pre(too_many)  # type: ignore[arg-type]


@pytest.fixture
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("NATS_URL", "NATS_SUBJECT", "NATS_QUEUE_GROUP", "METRICS_PORT", "LOG_LEVEL", "LOG_SILENT"):
        monkeypatch.delenv(name, raising=False)
    for name in ("BEAMLINE_EXTENSION_ID", "BEAMLINE_EXTENSION_TYPE", "BEAMLINE_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_without_an_environment_everything_follows_from_the_extension(
    bare_environment: pytest.MonkeyPatch,
) -> None:
    settings = RuntimeSettings.from_environment().for_extension(shout)
    assert (settings.extension_id, settings.nats_subject, settings.nats_queue_group) == (
        "shout",
        "beamline.ext.pre.shout.v1",
        "shout",
    )
    assert (settings.metrics_port, settings.nats_url) == (9090, "nats://127.0.0.1:4222")


def test_the_environment_of_a_workload_is_obeyed(bare_environment: pytest.MonkeyPatch) -> None:
    wanted = {
        "NATS_URL": "nats://n:1",
        "NATS_SUBJECT": "beamline.ext.pre.loud.v2",
        "NATS_QUEUE_GROUP": "loud",
        "BEAMLINE_EXTENSION_ID": "loud",
        "BEAMLINE_EXTENSION_TYPE": "pre",
        "BEAMLINE_CONFIG": '{"suffix": "."}',
        "METRICS_PORT": "0",
        "LOG_LEVEL": "DEBUG",
        "LOG_SILENT": "1",
    }
    for name, value in wanted.items():
        bare_environment.setenv(name, value)
    settings = RuntimeSettings.from_environment().for_extension(shout)
    assert settings.nats_subject == "beamline.ext.pre.loud.v2"
    assert (settings.config, settings.metrics_port, settings.log_level) == ({"suffix": "."}, 0, "debug")
    assert settings.log_silent


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("METRICS_PORT", "http", "METRICS_PORT"),
        ("METRICS_PORT", "70000", "METRICS_PORT"),
        ("BEAMLINE_CONFIG", "{", "BEAMLINE_CONFIG must be a JSON object"),
        ("BEAMLINE_CONFIG", "[1]", "BEAMLINE_CONFIG"),
        ("LOG_LEVEL", "loud", "LOG_LEVEL: must be one of debug, info"),
        ("BEAMLINE_EXTENSION_TYPE", "post", "BEAMLINE_EXTENSION_TYPE says post, but shout is a pre"),
        ("NATS_SUBJECT", "beamline.>", "NATS_SUBJECT must be"),
        ("NATS_SUBJECT", "beamline.router.v1.invoke", "reserved"),
        ("NATS_QUEUE_GROUP", "a b", "NATS_QUEUE_GROUP"),
    ],
)
def test_a_wrong_variable_is_named_in_one_sentence(
    bare_environment: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    bare_environment.setenv(name, value)
    with pytest.raises(SettingsError, match=words):
        RuntimeSettings.from_environment().for_extension(shout)


def test_the_services_protocol_is_answered_to_the_letter() -> None:
    stats = CallStats(requests=4, errors=1, last_error="INTERNAL", processing_ns=8_000)
    service = Service(
        shout, "shout", "beamline.ext.pre.shout.v1", "shout", stats, instance="abc", started="then"
    )
    assert [subject for subject, _ in service.subjects()][:3] == [
        "$SRV.PING",
        "$SRV.PING.shout",
        "$SRV.PING.shout.abc",
    ]
    ping, info, counted = (json.loads(service.answer(verb)) for verb in ("PING", "INFO", "STATS"))
    assert (ping["type"], ping["name"], ping["id"], ping["version"]) == (
        "io.nats.micro.v1.ping_response",
        "shout",
        "abc",
        "0.1.0",
    )
    assert all(isinstance(value, str) for value in info["metadata"].values())
    assert json.loads(info["metadata"]["beamline.config_schema"])["properties"]["suffix"]["type"] == "string"
    assert info["metadata"]["beamline.type"] == "pre"
    assert info["endpoints"][0]["queue_group"] == "shout"
    assert counted["endpoints"][0]["average_processing_time"] == 2_000
    assert counted["endpoints"][0]["num_errors"] == 1


def test_reconnects_come_soon_then_more_rarely_and_never_in_step() -> None:
    assert reconnect_delay(1, 0.0) == 0.025
    assert reconnect_delay(1, 1.0) == 0.05
    assert reconnect_delay(1000, 0.999) <= 0.8
    assert reconnect_delay(10, 0.0) == 0.4


def test_addresses_are_shown_without_their_passwords() -> None:
    settings = LinkSettings("nats://user:pass@a:4222, b:4223", "x")
    assert settings.servers == ["nats://user:pass@a:4222", "b:4223"]
    assert settings.shown == "nats://a:4222, nats://b:4223"


@pytest.fixture
def restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    structlog.reset_defaults()


@pytest.mark.usefixtures("restored_logging")
def test_our_lines_and_those_of_libraries_are_the_same_json(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("tester", level="info")
    structlog.get_logger().info("thing.done", extension_id="e", trace_id="t")
    structlog.get_logger().debug("thing.hidden")
    logging.getLogger("nats").warning("from %s", "nats")
    logging.getLogger("httpx2").info("a request with an address")
    ours, theirs = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert list(ours)[:3] == ["timestamp", "level", "event"]
    assert ours["timestamp"].endswith("Z")
    assert (ours["event"], ours["component"], ours["trace_id"]) == ("thing.done", "tester", "t")
    assert (theirs["level"], theirs["event"], theirs["logger"]) == ("warning", "from nats", "nats")


@pytest.mark.usefixtures("restored_logging")
def test_silent_leaves_errors_only(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("tester", level="debug", silent=True)
    structlog.get_logger().warning("thing.odd")
    logging.getLogger("nats").warning("odd")
    structlog.get_logger().error("thing.broken")
    assert [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()] == ["thing.broken"]


@pytest.mark.usefixtures("restored_logging")
def test_an_exception_is_logged_by_type_and_place_where_its_text_may_hold_a_payload(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.configure("tester", exception_text=False)
    try:
        {}["a secret"]
    except KeyError:
        structlog.get_logger().exception("thing.failed")
        logging.getLogger("library").exception("it failed")
    for line in capsys.readouterr().err.splitlines():
        assert "secret" not in line
        assert json.loads(line)["error"] == "KeyError"
        assert "test_sdk_authoring.py" in json.loads(line)["at"][-1]


@pytest.mark.usefixtures("restored_logging")
def test_what_asyncio_quotes_of_a_fault_is_left_out_where_it_may_hold_a_payload(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def breaks(payload: str) -> None:
        raise ValueError(payload)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.call_soon(int, "a secret")
        task = loop.create_task(breaks("a secret"))
        await asyncio.wait([task])

    logs.configure("tester", exception_text=False)
    asyncio.run(main())
    gc.collect()
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["event"], line["error"]) for line in lines] == [
        ("Exception in callback int", "ValueError"),
        ("Task exception was never retrieved", "ValueError"),
    ]
    assert "secret" not in str(lines)
    assert "in breaks" in lines[1]["at"][-1]


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(ValueError, match="LOG_LEVEL must be one of"):
        logs.threshold("loud", silent=False)
