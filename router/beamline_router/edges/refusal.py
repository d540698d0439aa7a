"""A refusal whose bytes are made once: what a router says to thousands per second when it is overloaded."""

from __future__ import annotations

from typing import Final

import orjson

from beamline_contract.errors import ErrorCode, WireError

RETRY_AFTER_MS: Final = 1_000
_ID: Final = "request-id-goes-here"


class Refusal:
    """RESOURCE_EXHAUSTED with ``message``; only the request id differs from one to the next.

    ``plain`` is the body with a ``%b`` for the id.
    """

    __slots__ = ("error", "plain")

    def __init__(self, message: str) -> None:
        self.error = WireError.of(
            ErrorCode.RESOURCE_EXHAUSTED,
            f"{message}; nothing was executed",
            retry_after_ms=RETRY_AFTER_MS,
            attempts=0,
            request_id=_ID,
        )
        self.plain = template({"error": self.error.to_wire()})


def template(body: object) -> bytes:
    """The JSON of a refusal's body with a ``%b`` in place of its id."""
    return orjson.dumps(body).replace(b"%", b"%%").replace(_ID.encode(), b"%b")
