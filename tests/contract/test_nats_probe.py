"""What a doctor finds out about a real NATS server."""

from __future__ import annotations

from pathlib import Path

import pytest

from beamline_cli.doctor import broker
from beamline_cli.doctor.checks import examine
from beamline_cli.doctor.patient import Patient, Verdict
from beamline_cli.local.nats import LocalNats
from beamline_sdk.link import LinkSettings
from beamline_sdk.link_security import LinkSecurity


def patient(url: str) -> Patient:
    return Patient(nats=LinkSettings(url, "test", security=LinkSecurity()))


async def test_an_open_server_on_this_machine_is_well(nats_server: LocalNats) -> None:
    found = {check.name: one for check, one in await examine(patient(nats_server.url))}
    assert found["nats"].verdict is found["nats-version"].verdict is found["nats-auth"].verdict is Verdict.OK
    assert "1048576 bytes" in found["nats-max-payload"].message


async def test_a_server_with_credentials_and_a_small_payload_is_told_apart(tmp_path: Path) -> None:
    config = tmp_path / "nats.conf"
    config.write_text("max_payload: 131072\nauthorization {user: anna, password: pw}\n")
    server = LocalNats(extra=("-c", str(config)))
    server.start()
    try:
        known = patient(server.url.replace("//", "//anna:pw@"))
        assert (await broker.credentials(known)).message == "it asks for credentials, and took these"
        assert (await broker.max_payload(known)).verdict is Verdict.FAILED
        stranger = {check.name: one for check, one in await examine(patient(server.url))}
        assert stranger["nats"].verdict is Verdict.FAILED
        assert "Authorization Violation" in stranger["nats"].message
        assert "pw" not in str(stranger)
        assert stranger["routers"].verdict is Verdict.SKIPPED
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("version", "numbers"),
    [("2.10.4", (2, 10, 4)), ("2.11.0-RC.1", (2, 11, 0)), ("odd", ())],
    ids=["a release", "a candidate", "none"],
)
def test_versions_are_compared_as_numbers(version: str, numbers: tuple[int, ...]) -> None:
    from beamline_sdk.nats_probe import NatsFacts

    assert NatsFacts(version, 1, False, False, 0.0).numbers == numbers
