"""Who is asking: request id and W3C trace context, read before anything else of a request.

Even a refusal carries them, so they never fail: what is absent or malformed is made new, what is only passed
on (tracestate, baggage) is dropped where nobody has to carry it. The caller's trace goes on under a span id
of our own, and nothing that a caller sends can add a line to a header or to a log.

Nothing here makes randomness: ``bits`` arrives as an argument.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from beamline_contract.names import (
    HEADER_BAGGAGE,
    HEADER_REQUEST_ID,
    HEADER_TRACEPARENT,
    HEADER_TRACESTATE,
)

from .spans import Spans

Bits = Callable[[int], int]
"""Random bits: ``random.Random().getrandbits``."""

_TRACEPARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[\x21-\x7e]*)?")
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_PRINTABLE: Final = re.compile(r"[\x20-\x7e]*")
_MAX_TRACESTATE: Final = 512  # characters that W3C Trace Context asks everybody to carry
_LONG_ENTRY: Final = 128  # characters of an entry of it; longer ones are the first to be left out
_MAX_BAGGAGE: Final = 8192  # bytes that W3C Baggage asks everybody to carry
_FLAGS: Final = frozenset({"00", "01", "02", "03"})
"""Those of ``traceparent`` that have a meaning: sampled, and random."""
_KEY_REQUEST_ID: Final = HEADER_REQUEST_ID.lower()


@dataclass(slots=True)
class Envelope:
    """Who is asking, known before the body is read, so that even a refusal carries its id and trace."""

    request_id: str
    trace_id: str
    traceparent: str
    tracestate: str | None
    baggage: str | None
    tenant: str | None = None
    """Known once the body is read."""
    spans: Spans | None = None
    """The request's trace, where traces are asked for."""


def open_envelope(headers: Mapping[str, str], bits: Bits) -> Envelope:
    """Request id and W3C trace context from lower-case ``headers``; what is absent or malformed is made
    new.

    The caller's trace goes on under a span id of our own; without a valid ``traceparent`` its
    ``tracestate`` means nothing and is dropped, as the W3C recommendation asks.
    """
    request_id = request_id_of(headers, bits)
    parent = headers.get(HEADER_TRACEPARENT)
    found = _TRACEPARENT.fullmatch(parent) if parent is not None else None
    span = (bits(64) or 1).to_bytes(8).hex()  # a third of the time that formatting takes
    if found is None or not _lawful(found):
        trace_id = (bits(128) or 1).to_bytes(16).hex()
        return Envelope(
            request_id,
            trace_id,
            f"00-{trace_id}-{span}-01",
            None,
            _carried(headers, HEADER_BAGGAGE, _MAX_BAGGAGE),
        )
    trace_id, flags = found[2], found[4]
    if flags not in _FLAGS:  # what we don't know we must not pass on
        flags = f"{int(flags, 16) & 3:02x}"
    state = _carried(headers, HEADER_TRACESTATE, _MAX_BAGGAGE)
    return Envelope(
        request_id,
        trace_id,
        f"00-{trace_id}-{span}-{flags}",
        state if state is None or len(state) <= _MAX_TRACESTATE else _shortened(state),
        _carried(headers, HEADER_BAGGAGE, _MAX_BAGGAGE),
    )


def request_id_of(headers: Mapping[str, str], bits: Bits) -> str:
    """The caller's request id where it states a lawful one, else a new one."""
    given = headers.get("x-request-id") or headers.get(_KEY_REQUEST_ID)
    return given if given is not None and _REQUEST_ID.fullmatch(given) else bits(128).to_bytes(16).hex()


def _lawful(found: re.Match[str]) -> bool:
    version, trace_id, span, _, more = found.groups()
    if version == "ff" or (version == "00" and more is not None):
        return False
    return trace_id.strip("0") != "" and span.strip("0") != ""


def _carried(headers: Mapping[str, str], name: str, limit: int) -> str | None:
    """A header that is only passed on: dropped where it is longer than anybody must carry, or not printable
    ASCII.
    """
    value = headers.get(name)
    if not value or len(value) > limit or not _PRINTABLE.fullmatch(value):
        return None
    return value


def _shortened(state: str) -> str | None:
    """A ``tracestate`` cut to what everybody must carry by whole entries: long ones are left out first, then
    the last ones, as the W3C recommendation asks (3.3.1.5).
    """
    entries = state.split(",")
    excess = len(state) - _MAX_TRACESTATE
    for least in (_LONG_ENTRY + 1, 0):
        for at in range(len(entries) - 1, -1, -1):
            if excess <= 0:
                break
            if len(entries[at]) >= least:
                excess -= len(entries.pop(at)) + 1
    return ",".join(entries) or None
