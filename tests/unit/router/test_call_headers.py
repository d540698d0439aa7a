"""The headers of a call as lines: nothing that a caller sends can end a line or add one."""

from __future__ import annotations

import pytest

from beamline_router.core.headers import HeaderLines, of_attempt, opening
from beamline_router.core.request import Trace
from beamline_router.edges.fast_nats_codec import Encoder, headers_of

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"


def lines(
    request_id: str = "req-1", tracestate: str | None = None, baggage: str | None = None
) -> HeaderLines:
    begun = opening(request_id, Trace(TRACE_ID, "01", tracestate, baggage))
    return of_attempt(begun, 0xB7AD6B7169203331, "01", ("250", "1700000000250"), 2)


def test_the_lines_read_as_the_mapping_that_they_are() -> None:
    assert dict(lines(tracestate="a=1", baggage="k=v")) == {
        "Beamline-Request-Id": "req-1",
        "tracestate": "a=1",
        "baggage": "k=v",
        "traceparent": f"00-{TRACE_ID}-b7ad6b7169203331-01",
        "Beamline-Deadline-Ms": "250",
        "Beamline-Deadline-At": "1700000000250",
        "Beamline-Attempt": "2",
    }
    assert len(lines()) == 5


def test_the_hot_path_writes_the_same_block_as_from_a_plain_mapping() -> None:
    written = lines(baggage="k=ü: v")
    assert Encoder().head(written) == Encoder().head(dict(written))


@pytest.mark.parametrize("broken", ["a\r\nX-Evil: 1", "a\nX-Evil: 1", "a\rX-Evil: 1"])
@pytest.mark.parametrize("field", ["request_id", "tracestate", "baggage"])
def test_a_line_break_in_a_value_becomes_a_space(field: str, broken: str) -> None:
    head = Encoder().head(lines(**{field: broken}))
    assert "x-evil" not in headers_of(head)
    assert head.count(b"\n") == len(lines(**{field: "a"})) + 2
