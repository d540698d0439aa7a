"""What a request's trace is told while the request runs; implemented by the edges, absent where nobody asked
for traces.

The core notes ids, words and times, never content. A call is one attempt: retries, fallbacks and the windows
of a stream are calls of their own. A step comes after its calls and says what they were made for.
"""

from __future__ import annotations

from typing import Protocol

from beamline_contract.errors import WireError

from .route import Call


class Spans(Protocol):
    """The spans of one request. On the hot path: must not block or raise. Times are monotonic seconds."""

    def call(  # noqa: PLR0917 -- told on the hot path
        self, span_id: int, call: Call, attempt: int, began: float, ended: float, error: str | None
    ) -> None:
        """One attempt ended; ``span_id`` is what the extension was told as its parent."""
        ...

    def step(
        self,
        name: str,
        call: Call,
        outcome: str,
        *,
        reason: str | None,
        attempts: int,
        why: str | None,
        began: float,
        seconds: float,
    ) -> None:
        """A step ended, with what :class:`.request.StepTrace` says of it; ``attempts`` 0: it was refused."""
        ...

    def ended(
        self, door: str, tenant: str | None, policy: str | None, provider: str | None, error: WireError | None
    ) -> None:
        """The request left by ``door``; decides whether the trace is kept."""
        ...
