"""Calls that their caller may still give up: from their arrival to their answer.

A caller whose own client has left, or who has been told no by another validator, says so on the extension's
cancel subject (docs/wire-contract.md, "Calls that are given up"). It names the call by its ``traceparent``:
each call is a span of its own, and both sides know it without any word more in the request. All instances
hear it; the one that has the call ends it, and for the others it means nothing.

A call that waits is never begun. One at work is cancelled where it stands, in the same way as at its
deadline: the author's code sees :class:`asyncio.CancelledError`, so its ``finally`` blocks and ``async with``
run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import orjson

from beamline_contract.names import HEADER_TRACEPARENT


class LiveCall:
    """One call. ``given_up``: nobody waits for its answer."""

    __slots__ = ("_limit", "given_up", "trace")

    def __init__(self, trace: str | None) -> None:
        self.trace = trace
        self.given_up = False
        self._limit: asyncio.Timeout | None = None

    def runs_within(self, limit: asyncio.Timeout) -> None:
        """The call's handler runs inside of ``limit`` from now on."""
        self._limit = limit

    def give_up(self) -> None:
        """Nobody waits any more: ends the handler, if it runs."""
        self.given_up = True
        if self._limit is not None and not self._limit.expired():
            self._limit.reschedule(asyncio.get_running_loop().time())


class LiveCalls:
    """The calls of one process."""

    def __init__(self) -> None:
        self._by_trace: dict[str, LiveCall] = {}

    def arrived(self, headers: Mapping[str, str] | None) -> LiveCall:
        """A new call; without a trace context it can't be named, and runs to its end."""
        call = LiveCall(None if headers is None else headers.get(HEADER_TRACEPARENT))
        if call.trace is not None:
            self._by_trace[call.trace] = call
        return call

    def answered(self, call: LiveCall) -> None:
        """The call is over. A retry of it, which has the same name, may have taken its place."""
        if call.trace is not None and self._by_trace.get(call.trace) is call:
            del self._by_trace[call.trace]

    def cancel(self, payload: bytes) -> None:
        """Takes one message of the cancel subject; one that makes no sense is ignored."""
        try:
            said = orjson.loads(payload)
        except orjson.JSONDecodeError:
            return
        trace = said.get("traceparent") if isinstance(said, dict) else None
        call = self._by_trace.get(trace) if isinstance(trace, str) else None
        if call is not None and not call.given_up:
            call.give_up()
