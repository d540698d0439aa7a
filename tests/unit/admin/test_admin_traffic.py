"""Traffic from counters, and who is told about what."""

from __future__ import annotations

from typing import Any

import pytest

from beamline_admin.identity import Identity, Role
from beamline_admin.live.hub import KEPT as KEPT_EVENTS
from beamline_admin.live.hub import MAX_LISTENERS, MAX_PER_IDENTITY, QUEUE, FullError, Hub
from beamline_admin.live.traffic import MAX_POINTS, QUIET, Traffic, quantile_ms
from beamline_admin.live.trails import KEPT, TrailStore, Wanted

BOUNDS = [0.01, 0.1, 1.0]
ADA = Identity("ada", Role.ADMIN)


def told(requests: int, *, errors: int = 0, age_s: float = 1_000.0, **more: Any) -> dict[str, Any]:
    buckets = [requests, 0, 0, 0]
    policy = {"requests": requests, "errors": errors, "steps": {"provider": [requests, errors]}}
    return {
        "age_s": age_s, "bounds": BOUNDS, "requests": requests, "errors": errors, "buckets": buckets,
        "extensions": {"mock": {"requests": requests, "errors": errors, "buckets": buckets}},
        "policies": {"main": policy},
        **more,
    }  # fmt: skip


def counts(traffic: Traffic) -> list[int]:
    return [sample["requests"] for sample in traffic.document()["samples"]]


def test_what_lies_between_two_looks_is_the_traffic_of_all_routers() -> None:
    traffic = Traffic()
    traffic.take([("a", told(100)), ("b", told(50))], 1_000.0)
    traffic.take([("a", told(110, errors=4)), ("b", told(55))], 1_005.0)
    document = traffic.document()
    assert [(one["requests"], one["errors"]) for one in document["samples"]] == [(0, 0), (15, 4)]
    assert document["samples"][-1]["at"] == "1970-01-01T00:16:45.000Z"
    assert document["extensions"] == {"mock": {"requests": 15, "errors": 4, "p50_ms": 5.0, "p99_ms": 9.9}}
    assert document["policies"] == {
        "main": {"requests": 15, "errors": 4, "steps": {"provider": {"requests": 15, "errors": 4}}}
    }


def test_a_router_that_started_since_counts_from_its_start_and_an_older_one_from_its_first_answer() -> None:
    traffic = Traffic()
    traffic.take([("a", told(100))], 1_000.0)
    traffic.take([("a", told(100)), ("new", told(7, age_s=3.0)), ("late", told(90_000))], 1_005.0)
    assert counts(traffic) == [0, 7]


def test_a_router_that_missed_a_look_is_not_counted_twice() -> None:
    traffic = Traffic()
    for at, answers in ((1_000.0, [("a", told(10))]), (1_005.0, []), (1_010.0, [("a", told(30))])):
        traffic.take(answers, at)
    assert counts(traffic) == [0, 0, 20]


def test_a_policy_that_went_and_came_back_begins_anew() -> None:
    traffic = Traffic()
    traffic.take([("a", told(100))], 1_000.0)
    traffic.take([("a", told(110, policies={}))], 1_005.0)
    small = {"main": {"requests": 3, "errors": 0, "steps": {"provider": [3, 0]}}}
    traffic.take([("a", told(113, policies=small))], 1_010.0)
    assert traffic.document()["policies"]["main"]["requests"] == 3


def test_extensions_are_summed_over_five_minutes_and_samples_kept_for_an_hour() -> None:
    traffic = Traffic()
    for look in range(1_000):
        traffic.take([("a", told(look))], 1_000.0 + 5 * look)
    document = traffic.document(minutes=60)
    assert len(document["samples"]) == 720
    assert len(traffic.document(minutes=1)["samples"]) == 12
    assert 54 <= document["extensions"]["mock"]["requests"] <= 60


def test_the_calls_of_one_extension_are_told_by_slots_of_the_last_half_hour() -> None:
    traffic = Traffic()
    assert traffic.points("mock") == []
    for look in range(500):  # 10 calls with 2 errors in each interval, of which the first is not known
        traffic.take([("a", told(10 * look, errors=2 * look))], 1_000.0 + 5 * look)
    points = traffic.points("mock")
    assert len(points) == MAX_POINTS
    assert {(one.requests, one.errors, one.p50_ms) for one in points} == {(2.0, 0.4, 5.0)}
    for look in range(500, 509):  # the slot goes on without calls, and another one begins
        traffic.take([("a", told(4_990, errors=998))], 1_000.0 + 5 * look)
    last = [(round(one.requests, 3), one.p99_ms) for one in traffic.points("mock")[-3:]]
    assert last == [(2.0, 9.9), (0.667, 9.9), (0.0, None)]
    assert set(traffic.points("nobody")) == {QUIET}


@pytest.mark.parametrize(
    ("buckets", "share", "ms"),
    [
        pytest.param([0, 0, 0, 0], 0.5, None, id="nothing was asked"),
        pytest.param([10, 0, 0, 0], 0.5, 5.0, id="half way through the first bucket"),
        pytest.param([5, 5, 0, 0], 0.99, 98.2, id="near the end of the second"),
        pytest.param([0, 0, 0, 3], 0.5, 1_000.0, id="above the last bound"),
        pytest.param([1, 2], 0.5, None, id="buckets of another version"),
    ],
)
def test_latencies_come_from_buckets(buckets: list[int], share: float, ms: float | None) -> None:
    assert quantile_ms(BOUNDS, buckets, share) == ms


async def test_a_listener_hears_its_topics_and_only_what_it_may_see() -> None:
    hub = Hub()
    whole = hub.join(ADA, {"objects"})
    bound = hub.join(Identity("bob", Role.VIEWER, tenants=frozenset({"acme"})), {"objects"})
    hub.publish("objects", lambda who: None if who.tenants else {"id": "secret"})
    hub.publish("routers", lambda _: {"id": "other"})
    assert await whole.next(0.01) == (5, "objects", {"id": "secret"})
    assert await whole.next(0.01) is None
    assert await bound.next(0.01) is None


async def test_a_slow_listener_is_dropped_and_told_so_and_others_go_on() -> None:
    hub = Hub()
    slow, fast = hub.join(ADA, {"trail"}), hub.join(Identity("bob", Role.ADMIN), {"trail"})
    for number in range(QUEUE + 10):
        hub.publish("trail", lambda _, number=number: {"number": number})
        assert await fast.next(0.01) == (number + 5, "trail", {"number": number})
    assert slow.lagged
    assert not fast.lagged
    for _ in range(QUEUE):
        assert await slow.next(0.01) is not None
    assert slow.over()


def test_who_comes_again_is_told_what_it_missed_and_only_what_it_may_see() -> None:
    hub = Hub(first=100)
    last = hub.join(ADA, {"objects"}).number
    for number in range(3):
        hub.publish("objects", lambda who, number=number: None if who.tenants else {"number": number})
        hub.publish("trail", lambda _: {"other": "topic"})
        hub.publish("routers", lambda _: {"has": "a state"})
    again = hub.join(ADA, {"objects"})
    assert hub.missed(again, last) == [
        (103, "objects", {"number": 0}),
        (106, "objects", {"number": 1}),
        (109, "objects", {"number": 2}),
    ]
    assert hub.missed(again, 106) == [(109, "objects", {"number": 2})]
    assert hub.missed(again, again.number) == []
    bound = hub.join(Identity("bob", Role.VIEWER, tenants=frozenset({"acme"})), {"objects"})
    assert hub.missed(bound, last) == []


@pytest.mark.parametrize(
    ("last", "known"),
    [
        pytest.param(1_000 + KEPT_EVENTS, True, id="the newest"),
        pytest.param(1_003, True, id="the oldest that is followed by everything"),
        pytest.param(1_002, False, id="one whose successor made room"),
        pytest.param(57, False, id="one of the process before"),
        pytest.param(5_000, False, id="one that has not been told yet"),
        pytest.param(-1, False, id="no number at all"),
    ],
)
def test_what_is_kept_is_bounded_and_its_end_is_known(last: int, known: bool) -> None:
    hub = Hub(first=1_000)
    for number in range(KEPT_EVENTS + 3):
        hub.publish("trail", lambda _, number=number: {"number": number})
    assert (hub.missed(hub.join(ADA, {"trail"}), last) is not None) is known


def test_after_something_that_nobody_was_told_nobody_can_go_on() -> None:
    hub = Hub()
    last = hub.join(ADA, {"objects"}).number
    hub.forget()
    again = hub.join(ADA, {"objects"})
    assert hub.missed(again, last) is None
    assert hub.missed(again, again.number) == []


async def test_listeners_are_bounded_for_each_identity_and_in_all() -> None:
    hub = Hub()
    mine = [hub.join(ADA, {"trail"}) for _ in range(MAX_PER_IDENTITY)]
    with pytest.raises(FullError):
        hub.join(ADA, {"trail"})
    hub.leave(mine[0])
    hub.join(ADA, {"trail"})
    for number in range(MAX_LISTENERS - MAX_PER_IDENTITY):
        hub.join(Identity(f"user-{number}", Role.VIEWER), {"objects"})
    with pytest.raises(FullError):
        hub.join(Identity("one more", Role.VIEWER), {"objects"})


async def test_a_closed_hub_ends_streams_that_are_open_and_those_that_come() -> None:
    hub = Hub()
    before = hub.join(ADA, {"trail"})
    hub.close()
    assert await before.next(1.0) is None
    assert before.over()
    after = hub.join(Identity("bob", Role.ADMIN), {"trail"})
    assert await after.next(1.0) is None
    assert after.over()


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def trail(request_id: str, tenant: str = "acme") -> bytes:
    return b'{"request_id":"%b","tenant":"%b","status":"ok","steps":[]}' % (
        request_id.encode(),
        tenant.encode(),
    )


def test_content_is_for_admins_and_is_forgotten_when_the_watch_ends() -> None:
    clock = Clock()
    store = TrailStore(clock)
    content = b'{"request_id":"r1","content":{"prompt":"secret","answer":"x"}}'
    store.take(trail("r1"))
    assert store.take_content(content) is None, "nobody asked for it"
    store.allow_content(60.0)
    assert store.take_content(content) == "r1"
    found = store.get("r1", ADA)
    assert found is not None
    assert found["content"] == {"prompt": "secret", "answer": "x"}
    assert "secret" not in str(store.get("r1", Identity("bob", Role.OPERATOR)))
    clock.now = 60.0
    assert "secret" not in str(store.get("r1", ADA))
    assert "secret" not in str(vars(store))


def test_content_inside_of_a_trail_is_dropped() -> None:
    store = TrailStore(Clock())
    store.take(b'{"request_id":"r1","steps":[],"content":{"prompt":"secret"}}')
    assert "secret" not in str(store.get("r1", ADA))


def test_who_is_bound_to_tenants_sees_their_requests_alone() -> None:
    store = TrailStore(Clock())
    store.take(trail("r1"))
    store.take(trail("r2", "shop"))
    bound = Identity("bob", Role.ADMIN, tenants=frozenset({"shop"}))
    assert [one["request_id"] for one in store.list(bound, Wanted())] == ["r2"]
    assert store.get("r1", bound) is None


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{", b"null", b'{"request_id": 5, "steps": []}', b'{"request_id": "r"}', b'{"steps": []}',
     b'{"request_id": "%b", "steps": []}' % (b"x" * 129), b" " * 300_000],
    ids=["nothing", "a list", "broken", "null", "a number", "no steps", "no id", "a long id", "300 kB"],
)  # fmt: skip
def test_what_is_no_trail_is_not_kept(body: bytes) -> None:
    store = TrailStore(Clock())
    assert store.take(body) is None
    assert store.list(ADA, Wanted()) == []


def test_only_the_last_trails_are_kept() -> None:
    store = TrailStore(Clock())
    for number in range(KEPT + 5):
        store.take(trail(f"r{number}"))
    assert store.get("r0", ADA) is None
    assert len(store.list(ADA, Wanted())) == KEPT
