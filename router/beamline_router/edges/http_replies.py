"""What HTTP replies carry: their headers, and streams of server-sent events.

A stream begins with its first event, so that an error before it still has a status of its own. Each event is
sent when it is there, and not before the client has room for it, which is the back-pressure that reaches the
provider. A client that takes nothing for ``STALLED_S`` has stopped reading.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Final

import orjson

from beamline_contract.errors import WireError

from ..core.envelope import Envelope
from ..core.request import Answer, StepTrace
from ..core.stream_port import SinkStalledError
from .http_exchange import JSON, Exchange, Header
from .serving import Served

STALLED_S: Final = 30.0
"""Seconds in which a client must take some of its stream; a reader that pauses longer is gone for us."""
_EVENTS: Final = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)
_DEFAULT_RETRY_AFTER_S: Final = 1


def envelope_headers(envelope: Envelope) -> list[Header]:
    """Request id, trace, tenant and baggage of every reply, as far as they are known."""
    headers = [
        (b"x-request-id", envelope.request_id.encode()),
        (b"traceparent", envelope.traceparent.encode()),
    ]
    if envelope.tenant is not None:
        headers.append((b"x-beamline-tenant", envelope.tenant.encode()))
    if envelope.baggage is not None:
        headers.append((b"baggage", envelope.baggage.encode()))
    return headers


def steps_line(trail: Sequence[StepTrace]) -> bytes:
    """The trail as a header, a list of RFC 8941: ``pii_guard;outcome=ok;ms=0.412;attempts=1, ...``."""
    return ", ".join([_step_words(step) for step in trail]).encode("ascii", "replace")


def _step_words(step: StepTrace) -> str:
    words = f"{step.extension_id};outcome={step.outcome};ms={step.ms:.3f};attempts={step.attempts}"
    if step.reason is not None:
        words += f";reason={step.reason}"
    if step.breaker is not None:
        words += f";breaker={step.breaker}"
    if step.version is not None:
        words += f";version={step.version}"
    return words if step.why is None else f'{words};why="{step.why}"'


def served_headers(served: Served) -> list[Header]:
    """The headers of a whole reply but its length."""
    result = served.result
    headers = [JSON, *envelope_headers(served.envelope)]
    if result.policy_id is not None:
        headers.append((b"x-beamline-policy", result.policy_id.encode()))
    if result.trail:
        headers.append((b"x-beamline-steps", steps_line(result.trail)))
    if isinstance(result, Answer):
        headers.append((b"x-beamline-provider", result.provider_id.encode("ascii", "replace")))
    if served.warnings:
        headers.append((b"x-beamline-warning", ", ".join(served.warnings).encode("ascii", "replace")))
    return headers


def add_error_headers(headers: list[Header], status: int, error: WireError) -> None:
    """What goes with an error: ``retry-after`` in whole seconds, where the error states it or the status asks
    for one, and the scheme that a missing key needs.
    """
    after = error.retry_after_ms
    if after is not None:
        headers.append((b"retry-after", str(max(1, ceil(after / 1000))).encode()))
    elif status in {429, 503}:
        headers.append((b"retry-after", str(_DEFAULT_RETRY_AFTER_S).encode()))
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))


class Events:
    """A stream of server-sent events; ``begun`` once the first has left."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self.begun = False

    def begin(self, envelope: Envelope) -> None:
        """Sends the head of the reply, once."""
        if not self.begun:
            self.begun = True
            self._exchange.begin(200, [*_EVENTS, *envelope_headers(envelope)])

    async def data(self, body: object, *, event: str | None = None) -> None:
        """One event. Raises :class:`SinkStalledError` when the client does not read."""
        text = body.encode() if isinstance(body, str) else orjson.dumps(body, default=str)
        name = b"" if event is None else b"event: " + event.encode() + b"\n"
        try:
            await self._exchange.send(name + b"data: " + text + b"\n\n", within_s=STALLED_S)
        except TimeoutError as stalled:
            raise SinkStalledError from stalled

    def end(self) -> None:
        """The end of the reply."""
        self._exchange.end()
