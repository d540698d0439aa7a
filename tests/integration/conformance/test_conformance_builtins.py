"""Every extension that ships with Beamline passes the suite that foreign ones must pass."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from beamline_cli.local.nats import LocalNats
from beamline_contract.names import derive_subject
from beamline_extensions.catalogue import create, names
from beamline_sdk.conformance import Outcome, Target
from harness.conformance_runs import checked
from harness.model_stub import model_stub


@dataclass(frozen=True)
class Setting:
    """What an extension needs to be able to answer."""

    config: dict[str, Any] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)


def _model_api(name: str, path: str) -> Setting:
    """A provider of a remote API, with the stub in its place (STUB is filled in)."""
    env = {f"{name}_API_KEY": "key-of-the-stub", f"{name}_BASE_URL": f"STUB{path}"}
    return Setting(config={"model": "m"}, env=env)


SETTINGS: dict[str, Setting] = {
    "anthropic": _model_api("ANTHROPIC", ""),
    "openai": _model_api("OPENAI", "/v1"),
    "openai_compatible": _model_api("OPENAI_COMPATIBLE", "/v1"),
    "json_schema_validator": Setting(options={"output": "{}"}),
}
"""Extensions that need more than a prompt; one that is not named here needs nothing."""


@pytest.fixture(scope="module")
def stub() -> Iterator[str]:
    with model_stub() as url:
        yield url


@pytest.mark.parametrize("name", names())
async def test_every_extension_that_ships_passes_the_suite(
    name: str, nats_server: LocalNats, stub: str, tmp_path: Path
) -> None:
    setting = SETTINGS.get(name, Setting())
    kind = create(name).kind
    subject = derive_subject(kind, name)
    command = (sys.executable, "-m", "beamline_extensions", name)
    target = Target.of(subject, kind=kind, config=setting.config, **setting.options)
    env = {key: value.replace("STUB", stub) for key, value in setting.env.items()}
    report = await checked(nats_server, tmp_path, command, target, env)
    failed = {r.check.id: r.detail for r in report.results if r.outcome is Outcome.FAILED}
    assert not failed
    not_checked = set(report.of(Outcome.NOT_CHECKED))
    assert not_checked <= {"config", "streaming"}
