"""Every extension that ships with Beamline passes the suite that foreign ones must pass."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from beamline_cli.local.nats import LocalNats
from beamline_contract.names import derive_subject
from beamline_extensions.catalogue import create, names
from beamline_sdk.conformance import Outcome, Target
from harness.conformance_runs import checked


@dataclass(frozen=True)
class Setting:
    """What an extension needs to be able to answer."""

    config: dict[str, Any] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)


SETTINGS: dict[str, Setting] = {}


@pytest.mark.parametrize("name", names())
async def test_every_extension_that_ships_passes_the_suite(
    name: str, nats_server: LocalNats, tmp_path: Path
) -> None:
    setting = SETTINGS.get(name, Setting())
    kind = create(name).kind
    subject = derive_subject(kind, name)
    command = (sys.executable, "-m", "beamline_extensions", name)
    target = Target.of(subject, kind=kind, config=setting.config, **setting.options)
    report = await checked(nats_server, tmp_path, command, target, setting.env)
    failed = {r.check.id: r.detail for r in report.results if r.outcome is Outcome.FAILED}
    assert not failed
    not_checked = set(report.of(Outcome.NOT_CHECKED))
    assert not_checked <= {"config", "streaming"}
