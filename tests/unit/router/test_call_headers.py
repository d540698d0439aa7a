"""The headers of a call as lines: nothing that a caller sends can end a line or add one."""

from __future__ import annotations

import pytest

from beamline_router.core.headers import HeaderLines, of_attempt, opening
from beamline_router.core.request import Trace
from beamline_router.edges.fast_nats_codec import Encoder, Starts, headers_of, publication, request_message

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


@pytest.mark.parametrize("payload", [b"", b"x" * 1200, "für".encode()], ids=["empty", "long", "not ASCII"])
def test_the_message_of_a_request_is_what_its_parts_make_one_by_one(payload: bytes) -> None:
    encoder, headers = Encoder(), lines(tracestate="a=1")
    starts = Starts(encoder, "_INBOX.abc.")
    apart = publication(
        encoder.subject("beamline.ext.pre.one.v1"), b"_INBOX.abc.17", encoder.head(headers), payload
    )
    for _ in range(2):  # made, then remembered
        start = starts["beamline.ext.pre.one.v1"]
        assert request_message(start, 17, headers.text, payload) == apart


@pytest.mark.parametrize("subject", ["a b", "a\r\nPUB b 0", ""])
def test_no_request_begins_with_a_subject_that_would_break_its_line(subject: str) -> None:
    with pytest.raises(ValueError, match="subject"):
        Starts(Encoder(), "_INBOX.abc.")[subject]
