"""Spans of a real extension process, received by a collector that speaks OTLP over HTTP."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from beamline_cli.local.nats import LocalNats
from beamline_sdk.tracing import MAX_CHARS, wanted
from harness.otlp import Collector, attributes

TRACE, ROUTER_SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = {"traceparent": f"00-{TRACE}-{ROUTER_SPAN}-01", "tracestate": "vendor=1", "baggage": "team=red"}
PROMPT = "the secret prompt"
BODY = {"request_id": "r1", "tenant_id": "acme", "parameters": {}, "context": {}, "prompt": PROMPT}
AUTHOR = """
from opentelemetry import baggage, trace
from beamline_sdk import ExtensionError, ExtensionRequest, ProviderReply, provider, run

@provider(name="traced")
async def traced(request: ExtensionRequest, config: object) -> ProviderReply:
    with trace.get_tracer("beamline").start_as_current_span("provider.traced.api_call") as span:
        span.set_attribute("team", str(baggage.get_baggage("team")))
    if request.prompt == "fail":
        raise ExtensionError("UNAVAILABLE", "away")
    return ProviderReply("done", prompt_tokens=3, completion_tokens=4)

run(traced)
"""


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.stop()


@pytest.fixture
def traced(start: Any, nats_server: LocalNats, subject: str, tmp_path: Path) -> Callable[..., Any]:
    """Starts the author's extension with ``OTEL_*`` variables."""
    path = tmp_path / "traced.py"
    path.write_text(AUTHOR)

    def begin(**environment: str) -> Any:
        return start("-u", str(path), NATS_URL=nats_server.url, NATS_SUBJECT=subject, **environment)

    return begin


async def test_the_span_of_a_request_is_the_child_of_the_routers_and_the_parent_of_the_authors(
    traced: Callable[..., Any], client: Any, subject: str, tools: Any, collector: Collector
) -> None:
    running = await traced(OTEL_EXPORTER_OTLP_ENDPOINT=collector.url).is_ready()
    answer = await tools.ask(client, subject, BODY | {"tenant_id": "t" * 500}, headers=PARENT)
    assert answer["output"] == "done"
    failed = await tools.ask(client, subject, BODY | {"prompt": "fail"})
    assert failed["error"]["code"] == "UNAVAILABLE"
    running.terminate()
    assert await running.exit_code() == 0

    child, orphan = collector.named("router.extension.provider")
    assert (child.trace_id.hex(), child.parent_span_id.hex()) == (TRACE, ROUTER_SPAN)
    assert child.trace_state == "vendor=1"
    said = attributes(child)
    assert said["beamline.extension_id"] == "traced"
    assert said["beamline.tenant_id"] == "t" * MAX_CHARS
    assert (said["beamline.request_id"], said["beamline.status"]) == ("r1", "ok")
    assert (said["gen_ai.usage.input_tokens"], said["gen_ai.usage.output_tokens"]) == (3, 4)
    own, _ = collector.named("provider.traced.api_call")
    assert (own.trace_id, own.parent_span_id) == (child.trace_id, child.span_id)
    assert attributes(own)["team"] == "red"

    assert orphan.parent_span_id == b""
    assert orphan.trace_id != child.trace_id
    assert (attributes(orphan)["error.type"], orphan.status.code) == ("UNAVAILABLE", 2)
    assert collector.resources()[0]["service.name"] == "beamline-traced"
    assert set(collector.paths) == {"/v1/traces"}
    assert all(PROMPT.encode() not in body for body in collector.bodies)


async def test_the_name_and_the_sampler_of_the_environment_hold(
    traced: Callable[..., Any], client: Any, subject: str, tools: Any, collector: Collector
) -> None:
    running = await traced(
        OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=f"{collector.url}/elsewhere",
        OTEL_SERVICE_NAME="mine",
        OTEL_TRACES_SAMPLER="parentbased_always_off",
    ).is_ready()
    await tools.ask(client, subject, BODY)
    await tools.ask(client, subject, BODY, headers=PARENT)
    running.terminate()
    assert await running.exit_code() == 0
    assert len(collector.named("router.extension.provider")) == 1, (
        "the sampler leaves what has no sampled parent"
    )
    assert collector.resources()[0]["service.name"] == "mine"
    assert set(collector.paths) == {"/elsewhere"}


async def test_a_collector_that_is_away_costs_spans_and_nothing_else(
    start: Any, client: Any, nats_server: LocalNats, subject: str, tools: Any
) -> None:
    environment = {
        "NATS_URL": nats_server.url, "NATS_SUBJECT": subject, "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
    }  # fmt: skip
    running = await start("mock_provider", **environment).is_ready()
    answers = await asyncio.gather(*(tools.ask(client, subject, BODY) for _ in range(20)))
    assert all("output" in answer for answer in answers)
    running.terminate()
    assert await running.exit_code() == 0
    assert running.event("extension.stopped") is not None
    assert PROMPT not in running.log.read_text()


@pytest.mark.parametrize(
    ("environ", "asked"),
    [
        pytest.param({}, False, id="nothing is said"),
        pytest.param({"OTEL_SERVICE_NAME": "x"}, False, id="a name alone"),
        pytest.param({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, True, id="an endpoint"),
        pytest.param(
            {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/t"}, True, id="an endpoint for traces"
        ),
        pytest.param({"OTEL_TRACES_EXPORTER": "console"}, True, id="the console"),
        pytest.param(
            {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c"}, False, id="no traces"
        ),
        pytest.param(
            {"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c"}, False, id="switched off"
        ),
    ],
)
def test_spans_are_made_only_where_the_environment_asks(environ: dict[str, str], asked: bool) -> None:
    assert wanted(environ) is asked


def test_without_being_asked_for_opentelemetry_is_not_imported() -> None:
    code = (
        "import sys; from beamline_sdk import tracing, runtime;"
        "assert tracing.configure('pre', 'x', '1', {}) is None;"
        "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_where_opentelemetry_is_missing_an_extension_serves_and_says_so(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "import importlib.util; real = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *a: None if 'opentele' in name else real(name, *a)\n"
        "from beamline_sdk import tracing\n"
        "sys.exit(tracing.configure('pre', 'x', '1', {'OTEL_TRACES_EXPORTER': 'otlp'}) is not None)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "beamline[tracing]" in done.stdout + done.stderr
