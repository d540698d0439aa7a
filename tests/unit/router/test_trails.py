"""What a router remembers of its requests, and what it tells whoever watches."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from beamline_contract.errors import ErrorCode, WireError
from beamline_router.core.request import Answer, Failure, Request, StepTrace
from beamline_router.edges.telemetry import Telemetry
from beamline_router.edges.trails import MAX_WATCHES, SLOW_S, Kept, Trails, Wanted, Watch

SECRET = "my card is 4111111111111111"


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def trails(clock: Clock, *, kept: int = 3, content: bool = False, drawn: float = 0.5) -> Trails:
    return Trails(
        "router-1", snapshot=lambda: None, clock=clock, wall=lambda: 1_700_000_000.0,
        draw=lambda: drawn, kept=kept, content=content,
    )  # fmt: skip


def answered(tenant: str = "acme") -> tuple[Request, Answer]:
    trail = [
        StepTrace(
            "guard", "extension_validator", "pii_guard", "ok", 2.0, notes={"seen": SECRET}, began=100.5
        ),
        StepTrace("provider", "select_provider", "mock", "ok", 7.0, why="weighted", began=100.6),
    ]
    answer = Answer("mock", SECRET, {}, {}, trail, "main")
    return Request("r", tenant, None, prompt=SECRET, model="gpt-4"), answer


def failed() -> tuple[Request, Failure]:
    error = WireError(
        ErrorCode.VALIDATION_REJECTED, SECRET, extension_id="pii_guard", details={"text": SECRET}
    )
    trail = [StepTrace("guard", "extension_validator", "pii_guard", "rejected", 2.0, began=100.0)]
    return Request("r", "acme", None, prompt=SECRET), Failure(error, trail, "main")


def note(one: Trails, request_id: str, made: Any, *, seconds: float = 0.01) -> None:
    envelope: Any = SimpleNamespace(request_id=request_id, trace_id="t" * 32)
    request, result = made
    one.note("http", envelope, request, result, started=100.0, seconds=seconds)


def test_a_trail_says_where_a_request_went_when_and_why() -> None:
    clock = Clock()
    one = trails(clock)
    note(one, "r1", answered())
    clock.now = 101.0
    found = one.find("r1")
    assert found is not None
    assert (found["instance"], found["policy"], found["tenant"], found["status"]) == (
        "router-1", "main", "acme", "ok",
    )  # fmt: skip
    assert (found["provider"], found["reason"], found["at"]) == (
        "mock",
        "weighted",
        "2023-11-14T22:13:19.000Z",
    )
    assert [(step["name"], step["start_ms"], step["ms"]) for step in found["steps"]] == [
        ("guard", 500.0, 2.0), ("provider", 600.0, 7.0),
    ]  # fmt: skip


@pytest.mark.parametrize("made", [answered(), failed()], ids=["an answer", "an error"])
def test_nothing_that_somebody_wrote_is_in_a_trail(made: Any) -> None:
    one = trails(Clock())
    note(one, "r1", made)
    assert SECRET not in str(one.find("r1"))


def test_good_requests_do_not_push_out_the_bad_or_slow_one() -> None:
    one = trails(Clock())
    note(one, "bad", failed())
    note(one, "slow", answered(), seconds=SLOW_S)
    for number in range(10):
        note(one, f"good-{number}", answered())
    assert one.find("bad") is not None
    assert one.find("slow") is not None
    assert one.find("good-9") is not None
    assert one.find("good-0") is None, "the ring holds three"


def test_strangers_do_not_push_out_what_failed() -> None:
    one = trails(Clock())
    note(one, "bad", failed())
    for number in range(10):
        note(one, f"stranger-{number}", (None, Failure(WireError(ErrorCode.UNAUTHENTICATED, "no key"), [])))
    assert one.find("bad") is not None


def test_a_router_that_keeps_nothing_knows_nothing() -> None:
    one = trails(Clock(), kept=0)
    note(one, "r1", answered())
    assert one.find("r1") is None
    assert one.recent(Wanted(10)) == []


@pytest.mark.parametrize(
    ("wanted", "ids"),
    [
        pytest.param(Wanted(10), ["b", "a"], id="all, newest first"),
        pytest.param(Wanted(1), ["b"], id="at most one"),
        pytest.param(Wanted(10, status="error"), ["b"], id="failed ones"),
        pytest.param(Wanted(10, status="VALIDATION_REJECTED"), ["b"], id="one error"),
        pytest.param(Wanted(10, status="ok"), ["a"], id="good ones"),
        pytest.param(Wanted(10, extension="mock"), ["a"], id="who met an extension"),
        pytest.param(Wanted(10, policy="other"), [], id="of another policy"),
        pytest.param(Wanted(10, tenants=frozenset({"shop"})), [], id="of another tenant"),
        pytest.param(Wanted(10, text="gpt-4"), ["a"], id="by text"),
    ],
)
def test_recent_trails_are_filtered(wanted: Wanted, ids: list[str]) -> None:
    one = trails(Clock())
    note(one, "a", answered())
    note(one, "b", failed(), seconds=0.02)
    assert [found["request_id"] for found in one.recent(wanted)] == ids


def queued(one: Trails) -> list[tuple[Kept, Any]]:
    return list(one._queue)


def test_nothing_is_published_unless_somebody_watches_and_not_after_it() -> None:
    clock = Clock()
    one = trails(clock)
    note(one, "before", answered())
    one.watch("w", Watch(110.0, 1.0, None, False))
    note(one, "during", answered())
    clock.now = 110.0
    note(one, "after", answered())
    assert [kept.request_id for kept, _ in queued(one)] == ["during"]


@pytest.mark.parametrize(
    ("watch", "told"),
    [
        pytest.param(Watch(110.0, 1.0, "acme", False), True, id="this tenant"),
        pytest.param(Watch(110.0, 1.0, "shop", False), False, id="another tenant"),
        pytest.param(Watch(110.0, 0.6, None, False), True, id="drawn"),
        pytest.param(Watch(110.0, 0.5, None, False), False, id="not drawn"),
        pytest.param(Watch(100.0, 1.0, None, False), False, id="a watch that is over"),
    ],
)
def test_a_watch_sees_its_sample_of_its_tenant(watch: Watch, told: bool) -> None:
    one = trails(Clock())
    one.watch("w", watch)
    note(one, "r1", answered())
    assert bool(queued(one)) is told


def test_content_needs_the_switch_and_the_watch() -> None:
    with pytest.raises(PermissionError, match="BEAMLINE_TRAIL_CONTENT"):
        trails(Clock()).watch("w", Watch(110.0, 1.0, None, True))
    one = trails(Clock(), content=True)
    one.watch("plain", Watch(110.0, 1.0, None, False))
    note(one, "r1", answered())
    one.watch("full", Watch(110.0, 1.0, None, True))
    note(one, "r2", answered())
    assert [content for _, content in queued(one)] == [None, {"prompt": SECRET, "answer": SECRET}]


def test_a_slow_publisher_costs_trails_and_no_memory() -> None:
    one = trails(Clock())
    one.watch("w", Watch(110.0, 1.0, None, False))
    for number in range(1_000):
        note(one, f"r{number}", answered())
    assert len(queued(one)) == 256
    assert one.dropped == 744


def test_there_are_only_so_many_watches_and_one_can_be_renewed() -> None:
    one = trails(Clock())
    for number in range(MAX_WATCHES):
        one.watch(f"w{number}", Watch(110.0, 1.0, None, False))
    one.watch("w3", Watch(120.0, 1.0, None, False))
    with pytest.raises(OverflowError):
        one.watch("more", Watch(110.0, 1.0, None, False))
    one.watch("w3", Watch(0.0, 0.0, None, False))
    one.watch("more", Watch(110.0, 1.0, None, False))


def test_traffic_counts_requests_steps_and_what_is_not_the_callers_fault() -> None:
    telemetry = Telemetry()
    for _, result in (answered(), failed()):
        telemetry.request("http", cast(Any, result), 0.003)
    broken = Failure(WireError(ErrorCode.UNAVAILABLE, "x"), [
        StepTrace("provider", "select_provider", "mock", "error", 1.0)], "main")  # fmt: skip
    telemetry.request("nats", broken, 0.2)
    telemetry.step("mock", "provider", "error", "UNAVAILABLE", 0.2)
    found: Any = telemetry.traffic(None)
    assert (found["requests"], found["errors"], sum(found["buckets"])) == (3, 1, 3)
    assert found["policies"] == {
        "main": {"requests": 3, "errors": 1, "steps": {"guard": [2, 0], "provider": [2, 1]}}
    }
    assert (found["extensions"]["mock"]["requests"], found["extensions"]["mock"]["errors"]) == (1, 1)


def test_policies_that_are_gone_are_forgotten() -> None:
    telemetry = Telemetry()
    telemetry.request("http", answered()[1], 0.003)
    empty: Any = SimpleNamespace(compiled_policies={})
    assert cast(Any, telemetry.traffic(empty))["policies"] == {}
