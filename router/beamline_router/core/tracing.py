"""W3C trace context through the pipeline: the caller's trace goes on, each call is a child span of its own.

A request without a valid ``traceparent`` starts a trace. Values that could break a header line are not passed
on.
"""

from __future__ import annotations

import re
from typing import Final

from .request import Request, Trace
from .state import Rng

_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_TRACE_ID: Final = re.compile(r"[0-9a-f]{32}")
_NO_TRACE: Final = "0" * 32
_NO_SPAN: Final = "0" * 16
MAX_VALUE: Final = 8192
"""Longest tracestate or baggage that is passed on; W3C asks for at least 512 and 8192 characters."""


def trace_of(request: Request, rng: Rng) -> Trace:
    """The caller's trace, else the request's trace id, else a new one."""
    parent = request.traceparent
    if parent is not None and (found := _TRACEPARENT.fullmatch(parent)) is not None:
        trace_id, span_id, flags = found.groups()
        if trace_id != _NO_TRACE and span_id != _NO_SPAN and not parent.startswith("ff"):
            return Trace(trace_id, flags, _printable(request.tracestate), _printable(request.baggage))
    trace_id = request.trace_id
    if trace_id == _NO_TRACE or not _TRACE_ID.fullmatch(trace_id):
        trace_id = f"{rng.getrandbits(128) or 1:032x}"
    return Trace(trace_id, "01", None, _printable(request.baggage))


def _printable(value: str | None) -> str | None:
    if value is None or len(value) > MAX_VALUE or not (value.isascii() and value.isprintable()):
        return None
    return value
