"""Whose Lease counts as another operator's at its work."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from beamline_operator.edges.lease import LABELS, SCOPE
from beamline_operator.edges.rivals import rival

OWN = ("ops", "beamline-operator")
ACQUIRED = "2026-03-01T10:00:00.500000Z"


class Leases:
    """An API server with one other Lease in ``models``, renewed each second until ``silent_from``; without a
    ``holder`` it was made beforehand, without a spec.
    """

    def __init__(self, scope: str = "", holder: str | None = "other-1", silent_from: float = 1e9) -> None:
        self.now = 0.0
        self.scope, self.holder, self.silent_from = scope, holder, silent_from
        self.name = "their-operator"
        self.asked: list[str] = []

    async def items(self, path: str, params: Mapping[str, Any]) -> AsyncIterator[dict[str, Any]]:
        self.asked.append(path)
        assert params == {"labelSelector": ",".join(f"{name}={value}" for name, value in LABELS.items())}
        if path in {
            "/apis/coordination.k8s.io/v1/leases",
            "/apis/coordination.k8s.io/v1/namespaces/models/leases",
        }:
            yield {
                "metadata": {
                    "namespace": "models", "name": self.name, "uid": "u",
                    "resourceVersion": str(int(min(self.now, self.silent_from))),
                    "annotations": {SCOPE: self.scope},
                },
                "spec": self.holder is not None and {
                    "holderIdentity": self.holder, "leaseDurationSeconds": 9, "acquireTime": ACQUIRED,
                },
            }  # fmt: skip

    async def found(
        self, *namespaces: str, own: tuple[str, str] = OWN, since: str | None = None
    ) -> str | None:
        async def sleep(seconds: float) -> None:
            self.now += seconds

        return await rival(
            self,  # type: ignore[arg-type]
            namespaces,
            own,
            since=since,
            clock=lambda: self.now,
            sleep=sleep,
        )


@pytest.mark.parametrize(
    ("mine", "theirs", "meet"),
    [
        ((), "", True),
        ((), "models,tools", True),
        (("models",), "", True),
        (("models", "web"), "tools,web", True),
        (("models",), "tools", False),
    ],
)
async def test_only_who_serves_the_same_counts(mine: tuple[str, ...], theirs: str, meet: bool) -> None:
    leases = Leases(theirs)
    assert await leases.found(*mine) == ("other-1 (Lease models/their-operator)" if meet else None)
    assert leases.now < 3, "a renewal is seen soon"


async def test_a_lease_that_nobody_renews_is_nobodys() -> None:
    leases = Leases(silent_from=0)
    assert await leases.found() is None
    assert 9 <= leases.now < 11, "not before it has run out"


@pytest.mark.parametrize("holder", ["", None], ids=["released", "made beforehand"])
async def test_one_that_nobody_holds_costs_one_look(holder: str | None) -> None:
    free = Leases(holder=holder)
    assert await free.found() is None
    assert (free.now, len(free.asked)) == (0, 1)


async def test_our_own_costs_one_look() -> None:
    own = Leases()
    assert await own.found(own=("models", "their-operator")) is None
    assert (own.now, len(own.asked)) == (0, 1)


@pytest.mark.parametrize(
    ("since", "own", "gives_way"),
    [
        ("2026-03-01T10:00:00.500001Z", OWN, True),
        ("2026-03-01T10:00:00.499999Z", OWN, False),
        (ACQUIRED, OWN, True),
        (ACQUIRED, ("alpha", "beamline-operator"), False),
    ],
    ids=["ours is younger", "ours is older", "same, ours comes after", "same, ours comes before"],
)
async def test_of_two_that_lead_the_younger_gives_way(
    since: str, own: tuple[str, str], gives_way: bool
) -> None:
    assert (await Leases().found(own=own, since=since) is not None) is gives_way
