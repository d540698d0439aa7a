"""What the router counts: health deltas that are never lost nor sent twice, and series that end with their
extension.
"""

from __future__ import annotations

import asyncio
import io
from typing import Any

import orjson
import pytest
from prometheus_client import generate_latest

from beamline_contract.errors import ErrorCode, WireError
from beamline_router.core.request import Answer, Failure, StepTrace
from beamline_router.edges.access_log import AccessLog
from beamline_router.edges.telemetry import Telemetry

WALL = 1_700_000_000.25


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry(wall=lambda: WALL)


def answer(**usage: int) -> Answer:
    return Answer("gpt", "hi", usage, {}, [], "default")


def sample(telemetry: Telemetry, name: str, **labels: str) -> float | None:
    return telemetry.registry.get_sample_value(name, labels)


def test_calls_add_up_to_one_delta_per_extension(telemetry: Telemetry) -> None:
    telemetry.attempt("guard", False, None, 0.010)
    telemetry.attempt("guard", False, None, 0.020)
    telemetry.attempt("guard", True, "UNAVAILABLE", 0.030)
    [delta] = telemetry.health()
    assert (delta.extension_id, delta.success, delta.failure, delta.last_error) == (
        "guard",
        2,
        1,
        "UNAVAILABLE",
    )
    assert delta.latency_ms_sum == pytest.approx(60)
    assert delta.last_success == "2023-11-14T22:13:20.250Z"


@pytest.mark.parametrize("reason", ["CANCELLED", "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"])
def test_what_says_nothing_about_health_is_neither_success_nor_failure(
    telemetry: Telemetry, reason: str
) -> None:
    telemetry.attempt("guard", False, reason, 0.1)
    assert telemetry.health() == []


def test_a_report_that_was_sent_is_not_sent_again_and_calls_made_meanwhile_are_kept(
    telemetry: Telemetry,
) -> None:
    telemetry.attempt("guard", False, None, 0.010)
    sent = telemetry.health()
    telemetry.attempt("guard", True, "INTERNAL", 0.005)
    telemetry.forget(sent)
    [left] = telemetry.health()
    assert (left.success, left.failure) == (0, 1)
    assert left.latency_ms_sum == pytest.approx(5)
    telemetry.forget([left])
    assert telemetry.health() == []


def test_a_report_that_could_not_be_sent_is_in_the_next_one(telemetry: Telemetry) -> None:
    telemetry.attempt("guard", False, None, 0.01)
    telemetry.health()
    telemetry.attempt("guard", False, None, 0.01)
    assert telemetry.health()[0].success == 2


def test_a_breaker_that_changes_is_reported_without_any_call(telemetry: Telemetry) -> None:
    telemetry.breaker("guard", "open")
    [delta] = telemetry.health()
    assert (delta.breaker, delta.success) == ("open", 0)
    assert sample(telemetry, "extension_breaker_state", extension_id="guard") == 2


def test_of_several_breakers_of_one_extension_the_worst_is_reported(telemetry: Telemetry) -> None:
    telemetry.breaker("guard", "open")
    telemetry.breaker("guard@default/guard", "half-open")
    assert [(delta.extension_id, delta.breaker) for delta in telemetry.health()] == [("guard", "open")]
    telemetry.breaker("guard", "closed")
    assert telemetry.health()[0].breaker == "half-open"


def test_the_series_of_an_extension_that_is_gone_are_removed(telemetry: Telemetry) -> None:
    for extension_id in ("guard", "gone"):
        telemetry.step(extension_id, "provider", "error", "UNAVAILABLE", 0.1)
        telemetry.attempt(extension_id, True, "UNAVAILABLE", 0.1)
        telemetry.dropped(extension_id, "tenant_id")
        telemetry.breaker(f"{extension_id}@default/step", "open")
    telemetry.keep({"guard"})
    text = generate_latest(telemetry.registry).decode()
    assert "gone" not in text
    assert 'extension_requests_total{extension_id="guard",status="error"} 1.0' in text
    assert [delta.extension_id for delta in telemetry.health()] == ["guard"]
    telemetry.step("gone", "provider", "ok", None, 0.1)
    assert sample(telemetry, "extension_requests_total", extension_id="gone", status="ok") == 1


def test_labels_are_bounded_whatever_arrives(telemetry: Telemetry) -> None:
    for number in range(100):
        telemetry.step("guard", "pre", f"outcome {number}", f"reason {number}", 0.1)
        telemetry.step("guard", "pre", "error", f"reason {number}", 0.1)
    text = generate_latest(telemetry.registry).decode()
    assert text.count("extension_failures_total{") == 1
    assert text.count("extension_requests_total{") == 2


def test_tokens_are_counted_by_kind_and_requests_by_how_they_ended(telemetry: Telemetry) -> None:
    telemetry.request("http", answer(prompt_tokens=3, completion_tokens=4, total_tokens=7), 0.1)
    telemetry.request("http", answer(), 0.1)
    telemetry.request("nats", Failure(WireError.of(ErrorCode.UNAVAILABLE, "no"), []), 0.1)
    assert sample(telemetry, "provider_tokens_total", provider_id="gpt", type="prompt") == 3
    assert sample(telemetry, "provider_tokens_total", provider_id="gpt", type="completion") == 4
    assert sample(telemetry, "router_requests_total", door="http", code="ok") == 2
    assert sample(telemetry, "router_requests_total", door="nats", code="unavailable") == 1


class _Gone(io.BytesIO):
    def write(self, _data: Any, /) -> int:
        raise BrokenPipeError


async def test_lines_of_the_access_log_are_whole_in_order_and_written_together() -> None:
    stream = io.BytesIO()
    access = AccessLog(stream=lambda: stream, wall=lambda: WALL)
    for number in range(3):
        access.write(number=number)
    assert stream.getvalue() == b"", "nothing is written request by request"
    access.flush()
    lines = [orjson.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["number"] for line in lines] == [0, 1, 2]
    assert lines[0]["timestamp"] == "2023-11-14T22:13:20.250000Z"
    assert (lines[0]["level"], lines[0]["event"]) == ("info", "request.served")


async def test_a_disabled_access_log_writes_nothing_and_a_closed_stream_stops_nobody() -> None:
    stream = io.BytesIO()
    off = AccessLog(enabled=False, stream=lambda: stream)
    off.write(a=1)
    off.flush()
    assert stream.getvalue() == b""
    for broken in (_Gone(), None):
        access = AccessLog(stream=lambda broken=broken: broken)  # type: ignore[misc]  # bound at once
        access.write(a=1)
        access.flush()
    await asyncio.sleep(0)


def test_of_a_share_of_the_requests_lines_are_evenly_spread_and_errors_always_have_one() -> None:
    quarter = AccessLog(share=0.25)
    assert [quarter.wants(False) for _ in range(8)] == [False, False, False, True] * 2
    assert all(quarter.wants(True) for _ in range(8))
    assert [AccessLog(share=0.0).wants(failed) for failed in (False, True)] == [False, True]
    assert [AccessLog(enabled=False).wants(failed) for failed in (False, True)] == [False, False]


def test_a_requests_own_time_is_without_its_provider(telemetry: Telemetry) -> None:
    trail = [
        StepTrace("guard", "extension_validator", "guard", "ok", 5.0),
        StepTrace("first", "select_provider", "gpt", "error", 300.0),
        StepTrace("first", "select_provider", "claude", "ok", 600.0),
    ]
    telemetry.request("http", Answer("claude", "", {}, {}, trail, "default"), 0.920)
    telemetry.request("http", Failure(WireError.of(ErrorCode.UNAVAILABLE, "no"), []), 9.0)
    assert sample(telemetry, "router_overhead_seconds_sum", door="http") == pytest.approx(0.020)
    assert sample(telemetry, "router_overhead_seconds_bucket", door="http", le="0.025") == 1


def test_opentelemetrys_names_stand_beside_ours(telemetry: Telemetry) -> None:
    telemetry.step("gpt", "provider", "ok", None, 0.3)
    telemetry.request("http", answer(prompt_tokens=5, completion_tokens=2000), 0.4)
    chat = {"gen_ai_operation_name": "chat", "gen_ai_provider_name": "gpt"}
    assert sample(telemetry, "gen_ai_client_operation_duration_seconds_count", **chat) == 1
    for kind, bound, total in (("input", "16.0", 5), ("output", "4096.0", 2000)):
        labels = {**chat, "gen_ai_token_type": kind}
        assert sample(telemetry, "gen_ai_client_token_usage_sum", **labels) == total
        assert sample(telemetry, "gen_ai_client_token_usage_bucket", **labels, le=bound) == 1
        assert sample(telemetry, "gen_ai_client_token_usage_bucket", **labels, le="4.0") == 0


def test_a_duration_on_a_bound_is_in_its_bucket_and_every_bucket_holds_those_before_it(
    telemetry: Telemetry,
) -> None:
    for seconds in (0.001, 0.0011, 59.0, 61.0):
        telemetry.step("gpt", "provider", "ok", None, seconds)
    for name, label in (
        ("extension_request_duration_seconds", "extension_id"),
        ("provider_latency_seconds", "provider_id"),
    ):
        counts = {
            le: sample(telemetry, f"{name}_bucket", **{label: "gpt"}, le=le)
            for le in ("0.001", "0.0025", "30.0", "60.0", "+Inf")
        }
        assert counts == {"0.001": 1, "0.0025": 2, "30.0": 2, "60.0": 3, "+Inf": 4}, name
        assert sample(telemetry, f"{name}_count", **{label: "gpt"}) == 4
        assert sample(telemetry, f"{name}_sum", **{label: "gpt"}) == pytest.approx(120.0021)


def test_an_extension_that_is_no_provider_has_no_provider_series(telemetry: Telemetry) -> None:
    telemetry.step("guard", "validator", "rejected", "VALIDATION_REJECTED", 0.01)
    assert sample(telemetry, "extension_requests_total", extension_id="guard", status="rejected") == 1
    assert sample(telemetry, "provider_requests_total", provider_id="guard", status="rejected") is None
