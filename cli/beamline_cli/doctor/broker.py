"""Checks of NATS."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from beamline_contract.wire import MAX_BODY_BYTES
from beamline_sdk.nats_probe import OLDEST_SERVER

from .patient import Finding, Patient, failed, ok, warning

LARGEST_REPLY: Final = 1024 * 1024
"""Bytes of the largest reply of an extension, NATS' own default."""
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


async def answers(patient: Patient) -> Finding:
    """NATS takes connections, with these credentials."""
    found = await patient.broker()
    return ok(f"NATS {found.version} answers in {found.round_trip_ms:.0f} ms")


async def version(patient: Patient) -> Finding:
    """Its version is one that Beamline is made for."""
    found = await patient.broker()
    oldest = ".".join(map(str, OLDEST_SERVER))
    if found.numbers < OLDEST_SERVER:
        return warning(f"NATS {found.version} is older than {oldest}", f"upgrade it to {oldest} or newer")
    return ok(f"{found.version} is {oldest} or newer")


async def credentials(patient: Patient) -> Finding:
    """It asks who we are."""
    found = await patient.broker()
    if found.asks_for_credentials:
        return ok("it asks for credentials, and took these")
    if _only_here(patient):
        return ok("it asks nobody for credentials, on this machine alone")
    return warning(
        "it asks nobody for credentials: whoever reaches it can answer prompts",
        "an account, or nkeys (docs/security-guide.md)",
    )


async def encryption(patient: Patient) -> Finding:
    """The connection is encrypted where it leaves the machine."""
    found = await patient.broker()
    if found.encrypted:
        return ok("the connection is encrypted")
    if _only_here(patient):
        return ok("the connection is not encrypted, and stays on this machine")
    return warning("the connection is not encrypted", "`tls://` in the address, and nats.tls in the chart")


async def max_payload(patient: Patient) -> Finding:
    """A whole request and a whole reply fit into one message."""
    found = await patient.broker()
    if found.max_payload < MAX_BODY_BYTES:
        return failed(
            f"messages may have {found.max_payload} bytes, a request {MAX_BODY_BYTES}",
            f"`max_payload: {LARGEST_REPLY}` in NATS",
        )
    if found.max_payload < LARGEST_REPLY:
        return warning(
            f"messages may have {found.max_payload} bytes, so replies of more than that fail",
            f"`max_payload: {LARGEST_REPLY}` in NATS",
        )
    return ok(f"messages may have {found.max_payload} bytes")


def _only_here(patient: Patient) -> bool:
    assert patient.nats is not None
    hosts = {urlsplit(one if "://" in one else f"nats://{one}").hostname for one in patient.nats.servers}
    return hosts <= _LOOPBACK
