"""The Lease's rules, with time by hand and an API server of one object."""

from __future__ import annotations

from typing import Any

import pytest

from beamline_operator.edges.lease import DURATION_S, RENEW_S, RETRY_S, Lease
from beamline_sdk.deployment.kube_api import KubeError


class OneLease:
    """An API server that holds one Lease, with optimistic concurrency; ``away`` makes it not answer."""

    def __init__(self) -> None:
        self.stored: dict[str, Any] | None = None
        self.away = False

    async def find(self, path: str) -> dict[str, Any] | None:
        if self.away:
            raise KubeError(0, "Unreachable", "away")
        return self.stored

    async def request(self, method: str, path: str, *, body: Any, params: Any) -> dict[str, Any]:
        if self.away:
            raise KubeError(0, "Unreachable", "away")
        version = int(self.stored["metadata"]["resourceVersion"]) if self.stored else 0
        if method == "POST" and self.stored is not None:
            raise KubeError(409, "AlreadyExists", "exists")
        if method == "PUT" and body["metadata"]["resourceVersion"] != str(version):
            raise KubeError(409, "Conflict", "modified")
        self.stored = {**body, "metadata": {**body["metadata"], "resourceVersion": str(version + 1)}}
        return self.stored


class Time:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def server() -> OneLease:
    return OneLease()


def candidate(server: OneLease, name: str, time: Time) -> Lease:
    return Lease(server, "ns", "beamline-operator", name, clock=time)  # type: ignore[arg-type]  # two methods suffice


async def test_the_first_takes_it_and_the_second_waits(server: OneLease, time: Time) -> None:
    first, second = candidate(server, "first", time), candidate(server, "second", time)
    await first.acquire()
    assert first.valid
    assert not await second._try()
    assert second.holder == "first"


async def test_one_that_was_made_beforehand_without_a_spec_is_nobodys(server: OneLease, time: Time) -> None:
    server.stored = {"metadata": {"name": "beamline-operator", "resourceVersion": "1"}}
    first = candidate(server, "first", time)
    await first.acquire()
    assert server.stored["spec"]["holderIdentity"] == "first"
    assert server.stored["spec"]["leaseTransitions"] == 0
    assert first.acquired == server.stored["spec"]["acquireTime"]


async def test_a_holder_that_is_silent_for_the_duration_loses_it(server: OneLease, time: Time) -> None:
    first, second = candidate(server, "first", time), candidate(server, "second", time)
    await first.acquire()
    assert not await second._try()
    time.now = DURATION_S - 0.1
    assert not await second._try(), "counted from when this candidate saw the last renewal"
    time.now = DURATION_S
    assert await second._try()
    assert server.stored is not None
    assert server.stored["spec"]["leaseTransitions"] == 1
    assert not await first._try()
    assert not first.valid


async def test_a_holder_that_renews_keeps_it(server: OneLease, time: Time) -> None:
    first, second = candidate(server, "first", time), candidate(server, "second", time)
    await first.acquire()
    for _ in range(20):
        time.now += RETRY_S
        assert await first._try()
        assert not await second._try()
    assert first.valid


def test_a_leader_that_vanishes_is_replaced_within_15_seconds() -> None:
    assert DURATION_S + 2 * RETRY_S <= 12, "seen late by one look, taken late by another, 3 s to begin"
    assert RENEW_S >= 4 * RETRY_S, "three renewals may fail"
    assert DURATION_S - RENEW_S >= 3, "the old one stops before the new one begins"


async def test_a_leader_stops_seconds_before_anybody_may_take_over(server: OneLease, time: Time) -> None:
    first = candidate(server, "first", time)
    await first.acquire()
    server.away = True
    time.now = RENEW_S - 0.1
    assert first.valid
    time.now = RENEW_S
    assert not first.valid, "frozen or cut off makes no difference"


async def test_a_released_lease_is_taken_at_once(server: OneLease, time: Time) -> None:
    first, second = candidate(server, "first", time), candidate(server, "second", time)
    await first.acquire()
    await first.release()
    assert not first.valid
    assert await second._try()


async def test_of_two_that_write_at_once_one_wins(server: OneLease, time: Time) -> None:
    first = candidate(server, "first", time)
    await first.acquire()
    stale = dict(server.stored or {})
    time.now = 2
    await first._try()
    with pytest.raises(KubeError):
        await server.request("PUT", "", body=stale, params={})
