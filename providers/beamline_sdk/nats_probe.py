"""What NATS says of itself, for people and scripts that ask now: one connection, opened and closed."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Final

from . import link
from .link import LinkSettings

TIMEOUT_S: Final = 5.0
OLDEST_SERVER: Final = (2, 10)
"""The oldest version that Beamline is meant to run on in production."""


@dataclass(frozen=True, slots=True)
class NatsFacts:
    """One server as a client meets it."""

    version: str
    max_payload: int
    """Bytes of one message, at most."""
    asks_for_credentials: bool
    encrypted: bool
    round_trip_ms: float

    @property
    def numbers(self) -> tuple[int, ...]:
        """The version as numbers, for comparing; empty where it has none."""
        parts = self.version.partition("-")[0].split(".")
        return tuple(int(part) for part in parts) if all(part.isdigit() for part in parts) else ()


async def look(settings: LinkSettings) -> NatsFacts:
    """Connects as every component does. Raises :class:`.link.LinkError` and :class:`OSError`."""
    nc = await link.connect(settings, timeout_s=TIMEOUT_S)
    try:
        began = time.monotonic()
        await nc.flush(int(TIMEOUT_S))
        took = time.monotonic() - began
        said: dict[str, Any] = nc._server_info
        writer: Any = getattr(nc._transport, "_io_writer", None)
        return NatsFacts(
            version=str(said.get("version", "")),
            max_payload=int(said.get("max_payload", 0)),
            asks_for_credentials=bool(said.get("auth_required")),
            encrypted=writer is not None and writer.get_extra_info("ssl_object") is not None,
            round_trip_ms=took * 1000,
        )
    finally:
        await link.close(nc, grace_s=1.0)
