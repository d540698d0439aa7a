"""What the router's core needs from outside, as small protocols; the edges implement them.

Expected outcomes are values: a transport answers bytes or a :class:`TransportFault`, it does not raise for a
timeout. Time is monotonic seconds from the injected clock, never the wall clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Protocol


class TransportFault(Enum):
    """Why a request brought no reply."""

    NO_RESPONDERS = "no responder listens on the subject"
    TIMED_OUT = "no reply within the timeout"
    DISCONNECTED = "not connected to NATS"
    TOO_LARGE = "the message is larger than the server allows"


class Transport(Protocol):
    """Request-reply. Plain nats-py, the fast path and a scripted fake implement it; one suite for all."""

    async def request(
        self, subject: str, payload: bytes, headers: Mapping[str, str], timeout_s: float
    ) -> bytes | TransportFault:
        """The first reply's payload. Cancelling the awaiting task forgets the request at once, and tells the
        extension that nobody waits for it any more.
        """
        ...


class Recorder(Protocol):
    """Takes what happened, for metrics, health deltas and logs. On the hot path: must not block or raise."""

    def step(
        self, extension_id: str, extension_type: str, outcome: str, reason: str | None, seconds: float
    ) -> None:
        """One step ended. ``outcome``: ok | rejected | skipped | error; ``reason``: a code or None."""
        ...

    def attempt(self, extension_id: str, failed: bool, reason: str | None, seconds: float) -> None:
        """One call ended (health): retries count one each, poison requests are not failures."""
        ...

    def dropped(self, extension_id: str, what: str) -> None:
        """Something an extension sent was ignored: a protected field, a second reply."""
        ...

    def breaker(self, extension_id: str, state: str) -> None:
        """A breaker changed its state: closed | open | half-open | isolated."""
        ...
