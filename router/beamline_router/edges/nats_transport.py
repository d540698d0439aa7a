"""Request-reply over plain nats-py: the port's reference implementation.

nats-py keeps one inbox subscription for all requests and a future per token, which is forgotten when it is
done, times out or is cancelled; a reply that comes later finds no token and is dropped. What this module
adds is that every expected outcome is a value, and that nothing is ever queued for a connection that is not
there: a request that waited in a reconnect buffer would be executed after its caller had given up.

Three traps are closed here. nats-py compares only the payload with the server's limit, but the server
counts headers too and answers an excess by closing the connection, on which all other requests are in
flight. A timeout of zero or less would still publish. And on Python 3.11 ``asyncio.wait_for`` forgets a
cancellation that arrives together with the reply, so the task's own count of cancellations is asked
afterwards.

A request that is cancelled is forgotten, and its extension is told (:func:`given_up`), so that it need not
work for nobody.

After a reconnect the responders come back one by one, so for a moment "no responders" is our own condition,
not theirs: it is reported as DISCONNECTED, or one restart of NATS would open the breaker of every
extension. For the same reason a request that ran out of time over an outage is DISCONNECTED: its reply may
have been lost with the connection.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

import orjson
from nats import errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from beamline_contract.errors import ErrorCode, WireError
from beamline_contract.names import HEADER_TRACEPARENT, cancel_subject

from ..core.ports import TransportFault

FAULTS: Final[dict[type[Exception], TransportFault]] = {
    errors.NoRespondersError: TransportFault.NO_RESPONDERS,
    errors.TimeoutError: TransportFault.TIMED_OUT,
    errors.MaxPayloadError: TransportFault.TOO_LARGE,
    errors.OutboundBufferLimitError: TransportFault.DISCONNECTED,
    errors.ConnectionClosedError: TransportFault.DISCONNECTED,
    errors.ConnectionDrainingError: TransportFault.DISCONNECTED,
    errors.ConnectionReconnectingError: TransportFault.DISCONNECTED,
    errors.StaleConnectionError: TransportFault.DISCONNECTED,
    errors.UnexpectedEOF: TransportFault.DISCONNECTED,
}
"""What nats-py raises for an expected outcome. Anything else is a fault of ours and is not swallowed."""

_EXPECTED: Final = tuple(FAULTS)
SETTLE_S: Final = 2.0
"""After a reconnect, for how long "no responders" says nothing: the others are still on their way back."""

SERVICE_ERROR: Final = "Nats-Service-Error"
SERVICE_ERROR_CODE: Final = "Nats-Service-Error-Code"
SERVICE_CODES: Final[dict[str, ErrorCode]] = {
    "400": ErrorCode.INVALID_ARGUMENT,
    "401": ErrorCode.UNAUTHENTICATED,
    "403": ErrorCode.PERMISSION_DENIED,
    "404": ErrorCode.NOT_FOUND,
    "408": ErrorCode.DEADLINE_EXCEEDED,
    "422": ErrorCode.VALIDATION_REJECTED,
    "429": ErrorCode.RESOURCE_EXHAUSTED,
    "503": ErrorCode.UNAVAILABLE,
    "504": ErrorCode.DEADLINE_EXCEEDED,
}
"""Codes of the NATS services protocol are the author's own words; most authors take HTTP's."""

_HEADER_ROOM: Final = 32 * 1024  # below the limit by more than this, headers need no counting
_HEADER_FRAME: Final = len("NATS/1.0\r\n\r\n")
_LINE_FRAME: Final = len(": \r\n")


class NatsTransport:
    """``core.ports.Transport`` on a nats-py client. Without a client (yet), every request is DISCONNECTED.

    ``on_late`` is called for each reply that nobody waits for any more.
    """

    def __init__(self, nc: Client | None = None, on_late: Callable[[], None] | None = None) -> None:
        self._on_late = on_late
        self._nc: Client | None = None
        self._reconnects = 0
        self._settled_at = 0.0
        if nc is not None:
            self.attach(nc)

    def attach(self, nc: Client) -> None:
        """Gives the connection, once there is one, before anything was requested on it."""
        self._nc = nc
        if self._on_late is not None:
            _listen_for_late(nc, self._on_late)
        self._reconnects = nc.stats["reconnects"]

    @property
    def connected(self) -> bool:
        """Whether a request would leave this process now."""
        return self._nc is not None and self._nc.is_connected

    async def request(
        self, subject: str, payload: bytes, headers: Mapping[str, str], timeout_s: float
    ) -> bytes | TransportFault:
        """See the port. Raises :class:`ValueError` for what no caller may send: a malformed subject or
        header.
        """
        nc = self._nc
        if nc is None or not nc.is_connected:
            return TransportFault.DISCONNECTED
        if timeout_s <= 0:
            return TransportFault.TIMED_OUT
        room = nc.max_payload - len(payload)
        if room < _HEADER_ROOM and room < _size(headers):
            return TransportFault.TOO_LARGE
        if nc.stats["reconnects"] != self._reconnects:
            self._reconnects = nc.stats["reconnects"]
            self._settled_at = time.monotonic() + SETTLE_S
        before = self._reconnects
        task = asyncio.current_task()
        cancels = task.cancelling() if task is not None else 0
        try:
            reply = await nc.request(subject, payload, timeout=timeout_s, headers=headers)  # type: ignore[arg-type]  # it only iterates
        except _EXPECTED as error:
            fault = _fault_of(error)
            if fault is TransportFault.NO_RESPONDERS and time.monotonic() < self._settled_at:
                return TransportFault.DISCONNECTED
            if fault is TransportFault.TIMED_OUT and (not self.connected or nc.stats["reconnects"] != before):
                return TransportFault.DISCONNECTED
            return fault
        except asyncio.CancelledError:
            word = given_up(headers)
            if word is not None and nc.is_connected:
                with suppress(errors.Error):
                    await nc.publish(cancel_subject(subject), word)
            raise
        except (errors.BadSubjectError, errors.BadHeaderError) as error:
            what = "subject" if isinstance(error, errors.BadSubjectError) else "header name"
            raise ValueError(f"NATS can't carry this {what}") from error
        if task is not None and task.cancelling() > cancels:
            raise asyncio.CancelledError
        if reply.headers and SERVICE_ERROR_CODE in reply.headers:
            return service_error(
                reply.data, reply.headers[SERVICE_ERROR_CODE], reply.headers.get(SERVICE_ERROR)
            )
        return bytes(reply.data)


def _listen_for_late(nc: Any, on_late: Callable[[], None]) -> None:
    """nats-py drops a reply that nobody waits for without a word, so its own callback is asked first."""
    answered = nc._request_sub_callback

    async def callback(message: Msg) -> None:
        waiting = nc._resp_map.get(message.subject.rpartition(".")[2])
        if waiting is None or waiting.done():
            on_late()
            return
        await answered(message)

    nc._request_sub_callback = callback


def given_up(headers: Mapping[str, str]) -> bytes | None:
    """The message by which an extension learns that nobody waits for a call; None where it has no name."""
    trace = headers.get(HEADER_TRACEPARENT)
    return None if trace is None else orjson.dumps({"traceparent": trace})


def _fault_of(error: Exception) -> TransportFault:
    for kind in type(error).__mro__:
        if kind in FAULTS:
            return FAULTS[kind]
    raise error


def _size(headers: Mapping[str, str]) -> int:
    return _HEADER_FRAME + sum(len(key) + len(value.encode()) + _LINE_FRAME for key, value in headers.items())


def service_error(payload: bytes, stated: str, description: str | None) -> bytes:
    """The reply of a service that reports its error in headers, in our own words; a body that has them
    stays.
    """
    if payload[:1] == b"{" and b'"error"' in payload:
        return bytes(payload)
    code = (
        ErrorCode(stated)
        if stated in ErrorCode.__members__
        else SERVICE_CODES.get(stated, ErrorCode.INTERNAL)
    )
    message = description or "the service gave no description"
    return orjson.dumps(
        {"error": WireError.of(code, f"{message[:512]} (service code {stated[:32]})").to_wire()}
    )
