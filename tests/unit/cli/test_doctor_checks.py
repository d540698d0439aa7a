"""What ``beamline check`` finds in clusters that a test states: one world that is well, and a row for each
way in which something in it is not.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from beamline_cli.doctor import operator
from beamline_cli.doctor.checks import CHECKS, examine
from beamline_cli.doctor.patient import Finding, Patient, RouterAnswer, Verdict, component_of
from beamline_sdk.deployment.kube_api import KubeError
from beamline_sdk.link import LinkSettings
from beamline_sdk.link_security import LinkSecurity
from beamline_sdk.nats_probe import NatsFacts
from harness.doctor_cases import CASES
from harness.doctor_world import NOW, Break, World, deployment


async def looked_at(world: World, monkeypatch: pytest.MonkeyPatch) -> dict[str, Finding]:
    patient = Patient(
        api=world,  # type: ignore[arg-type]
        nats=LinkSettings("nats://nats.example:4222", "test", security=LinkSecurity()),
        namespaces=("models",),
    )

    async def broker() -> NatsFacts:
        if isinstance(world.nats, Exception):
            raise world.nats
        return world.nats

    async def routers() -> list[RouterAnswer]:
        return world.routers

    monkeypatch.setattr(Patient, "now", property(lambda _: NOW))
    monkeypatch.setattr(Patient, "broker", lambda _: broker())
    monkeypatch.setattr(Patient, "routers", lambda _: routers())
    monkeypatch.setattr(Patient, "server_clock", lambda _: world.get_clock())
    return {check.name: finding for check, finding in await examine(patient)}


async def test_a_world_that_is_well_has_nothing_to_say(monkeypatch: pytest.MonkeyPatch) -> None:
    found = await looked_at(World(), monkeypatch)
    not_ok = {name: finding.message for name, finding in found.items() if finding.verdict != "ok"}
    database = {check.name for check in CHECKS if check.need == "database"}
    assert not_ok.keys() == database
    assert set(not_ok.values()) == {"no database is named"}


@pytest.mark.parametrize(
    ("change", "name", "verdict", "words"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
async def test_what_is_not_well_is_found_and_said(
    change: Break, name: str, verdict: Verdict, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World()
    change(world)
    found = (await looked_at(world, monkeypatch))[name]
    assert (found.verdict, words in found.message) == (verdict, True), found
    assert found.help or verdict is Verdict.SKIPPED
    assert "never shown" not in str(found)


def test_every_check_that_a_cluster_can_fail_has_a_case() -> None:
    """The others need a database or objects on their way out, and are proven on real ones."""
    elsewhere = {check.name for check in CHECKS if check.need == "database"} | {"api-server", "finalizers"}
    assert {check.name for check in CHECKS} - elsewhere == {case[2] for case in CASES}


def test_there_are_twenty_checks_and_more_and_each_has_a_name_and_a_sentence() -> None:
    names = [check.name for check in CHECKS]
    assert len(names) == len(set(names)) >= 20
    assert all(re.fullmatch(r"[a-z][a-z-]+", name) for name in names)
    assert all((check.look.__doc__ or "").strip() for check in CHECKS)


def test_the_page_names_every_check_under_its_group() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "cli.md").read_text()
    for check in CHECKS:
        (row,) = re.findall(rf"^\| {check.group} \| .*$", page, re.MULTILINE)
        assert f"`{check.name}`" in row


async def test_an_api_server_that_is_away_is_one_failure_and_everything_behind_it_is_skipped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()

    async def nobody(*_: Any, **__: Any) -> dict[str, Any]:
        raise KubeError(0, "Unreachable", "the API server does not answer")

    monkeypatch.setattr(world, "request", nobody)
    found = await looked_at(world, monkeypatch)
    assert [name for name, finding in found.items() if finding.verdict == "failed"] == ["api-server"]
    assert found["finalizers"].message == "not looked at, because the check `api-server` failed"


async def test_a_look_up_that_many_checks_need_is_done_once() -> None:
    calls: list[str] = []

    class Api(World):
        async def items(self, path: str, *rest: Any, **options: Any) -> AsyncIterator[dict[str, Any]]:
            calls.append(path)
            async for item in super().items(path, *rest, **options):
                yield item

    patient = Patient(api=Api(), namespaces=("models",))  # type: ignore[arg-type]
    await asyncio.gather(operator.present(patient), operator.ready(patient), operator.versions(patient))
    assert len(calls) == 1


def test_a_deployment_of_somebody_else_with_our_label_is_none_of_ours() -> None:
    other: Mapping[str, Any] = deployment("operator", 1)
    other["spec"]["template"]["spec"]["containers"][0]["args"] = ["serve"]
    assert component_of(other) == ""
    assert component_of(deployment("router", 1)) == "router"
