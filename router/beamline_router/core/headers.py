"""The headers of one call, as the lines in which they leave.

What all calls of a request have in common is put together once (:func:`opening`), what differs from attempt
to attempt is added by one formatting (:func:`of_attempt`). The result is a mapping like any other for
whoever wants to look into it; a transport that writes lines takes :attr:`HeaderLines.text` as it is.

No value can end its line or add another: names are constants, ids of traces are hexadecimal, and everything
else has its line breaks replaced here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from beamline_contract import names

from .request import Trace

_BREAKS: Final = str.maketrans({"\r": " ", "\n": " "})


class HeaderLines(Mapping[str, str]):
    """Headers as text: each line is ``Name: value`` and a line break."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def __getitem__(self, name: str) -> str:
        return self._parsed()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._parsed())

    def __len__(self) -> int:
        return self.text.count("\r\n")

    def _parsed(self) -> dict[str, str]:
        pairs = (line.partition(": ") for line in self.text.split("\r\n")[:-1])
        return {name: value for name, _, value in pairs}


def opening(request_id: str, trace: Trace) -> str:
    """The lines that all calls of a request share; the last one is unfinished, after the trace id."""
    text = f"{names.HEADER_REQUEST_ID}: {one_line(request_id)}\r\n"
    if trace.tracestate:
        text += f"{names.HEADER_TRACESTATE}: {one_line(trace.tracestate)}\r\n"
    if trace.baggage:
        text += f"{names.HEADER_BAGGAGE}: {one_line(trace.baggage)}\r\n"
    return f"{text}{names.HEADER_TRACEPARENT}: 00-{trace.trace_id}-"


def of_attempt(begun: str, span: int, flags: str, deadline: tuple[str, str], attempt: int) -> HeaderLines:
    """The headers of one attempt: ``begun`` by :func:`opening`, the span id and flags of ``traceparent``, the
    two values of :func:`.deadline.header_values`, and which attempt it is.
    """
    return HeaderLines(
        f"{begun}{span.to_bytes(8).hex()}-{flags}\r\n"
        f"{names.HEADER_DEADLINE_MS}: {deadline[0]}\r\n"
        f"{names.HEADER_DEADLINE_AT}: {deadline[1]}\r\n"
        f"{names.HEADER_ATTEMPT}: {attempt}\r\n"
    )


def one_line(value: str) -> str:
    """The value with spaces for line breaks."""
    return value.translate(_BREAKS) if "\r" in value or "\n" in value else value
