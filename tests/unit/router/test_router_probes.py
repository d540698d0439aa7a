"""A probe is answered with everything that an operator who knows nothing needs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from beamline_contract.names import SUBJECT_ROUTER_HEALTH, SUBJECT_ROUTER_STATUS
from beamline_router.edges.reports import Reporter
from beamline_router.edges.telemetry import Telemetry


class Connection:
    """Keeps what is published."""

    is_connected = True
    max_payload = 1_048_576

    def __init__(self) -> None:
        self.told: list[tuple[str, dict[str, Any]]] = []

    async def publish(self, subject: str, payload: bytes) -> None:
        self.told.append((subject, orjson.loads(payload)))

    async def subscribe(self, subject: str, cb: Any) -> str:
        return subject


@pytest.fixture
def telemetry() -> Telemetry:
    made = Telemetry()
    made.breaker("gpt", "open")
    made.breaker("calm", "closed")
    return made


@pytest.fixture
async def probed(telemetry: Telemetry) -> tuple[Connection, Reporter]:
    """A router whose first reports are out."""
    snapshot = SimpleNamespace(revision=7, extensions=0, policies=0)
    refresher = SimpleNamespace(snapshot=snapshot, refused=(), notices=())
    reporter = Reporter(refresher, telemetry, instance="r1", started_at="2030-01-01T00:00:00Z")  # type: ignore[arg-type]  # as far as it is read
    connection = Connection()
    await reporter.open(connection)  # type: ignore[arg-type]
    await reporter.health()
    connection.told.clear()
    await reporter.health()
    assert connection.told == [], "only what changed"
    return connection, reporter


@pytest.mark.parametrize("asked", [b"{}", b'{"instance": "r1"}', b"", b"[]"])
async def test_it_repeats_its_status_and_the_breakers_that_are_not_closed(
    probed: tuple[Connection, Reporter], asked: bytes
) -> None:
    connection, reporter = probed
    await reporter._probed(SimpleNamespace(data=asked))  # type: ignore[arg-type]
    (status, said), (health, deltas) = connection.told
    assert (status, health) == (SUBJECT_ROUTER_STATUS, SUBJECT_ROUTER_HEALTH)
    assert (said["instance"], said["revision"]) == ("r1", 7)
    assert [(one["extension_id"], one["breaker"]) for one in deltas["deltas"]] == [("gpt", "open")]
    assert deltas["sequence"] == 2, "no repeat of a report that was counted"


async def test_a_probe_of_another_router_is_none_of_its_business(
    probed: tuple[Connection, Reporter],
) -> None:
    connection, reporter = probed
    await reporter._probed(SimpleNamespace(data=b'{"instance": "r2"}'))  # type: ignore[arg-type]
    assert connection.told == []
