"""The codec of the hot path: whatever way the stream is cut, the same messages come out; what is put together
can be cut again.
"""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamline_router.edges.fast_nats_codec import (
    Decoder,
    Encoder,
    Line,
    Message,
    StreamError,
    headers_of,
    publication,
)

HEAD = b"NATS/1.0\r\nA: b\r\n\r\n"
STREAM = (
    b'INFO {"max_payload":1048576}\r\n'
    b"PING\r\n"
    b"MSG a.b 1 5\r\nhello\r\n"
    b"MSG a.b 2 _INBOX.x.7 12\r\nMSG x 1 1\r\na\r\n"
    b"+OK\r\n"
    b"HMSG a 1 18 23\r\n" + HEAD + b"world\r\n"
    b"HMSG _INBOX.x.8 2 16 16\r\nNATS/1.0 503\r\n\r\n\r\n"
    b"-ERR 'Permissions Violation for Publish to \"x\"'\r\n"
    b"MSG a 1 0\r\n\r\n"
    b"PONG\r\n"
)
TAKEN = [
    (b"a.b", b"", b"", b"hello"),
    (b"a", b"", HEAD, b"world"),
    (b"a", b"", b"", b""),
]
REST = [
    Line(b"INFO", b'{"max_payload":1048576}'),
    Line(b"PING", b""),
    Message(2, b"a.b", b"_INBOX.x.7", b"", b"MSG x 1 1\r\na"),
    Line(b"+OK", b""),
    Message(2, b"_INBOX.x.8", b"", b"NATS/1.0 503\r\n\r\n", b""),
    Line(b"-ERR", b"'Permissions Violation for Publish to \"x\"'"),
    Line(b"PONG", b""),
]


def cut(pieces: list[bytes]) -> tuple[list[tuple[bytes, bytes, bytes, bytes]], list[Message | Line]]:
    """What the handler of subscription 1 takes, and what comes back."""
    taken: list[tuple[bytes, bytes, bytes, bytes]] = []
    rest: list[Message | Line] = []
    decoder = Decoder()
    decoder.handlers[b"1"] = lambda *message: taken.append(message)
    for piece in pieces:
        rest += decoder.feed(piece)
    return taken, rest


def test_a_stream_in_one_piece_is_cut_into_its_messages_and_lines() -> None:
    assert cut([STREAM]) == (TAKEN, REST)


def test_a_stream_cut_in_two_at_any_byte_gives_the_same() -> None:
    for at in range(len(STREAM) + 1):
        assert cut([STREAM[:at], STREAM[at:]]) == (TAKEN, REST), at


def test_a_stream_that_comes_byte_by_byte_gives_the_same() -> None:
    assert cut([STREAM[at : at + 1] for at in range(len(STREAM))]) == (TAKEN, REST)


@given(st.lists(st.integers(min_value=0, max_value=len(STREAM)), max_size=12))
def test_a_stream_cut_anywhere_gives_the_same(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(STREAM)]
    assert cut([STREAM[a:b] for a, b in pairwise(edges)]) == (TAKEN, REST)


@given(st.lists(st.tuples(st.binary(max_size=300), st.booleans()), max_size=20), st.integers(1, 64))
def test_any_payload_survives_any_size_of_read(messages: list[tuple[bytes, bool]], size: int) -> None:
    stream = b"".join(
        b"HMSG s 1 %d %d\r\n%b%b\r\n" % (len(HEAD), len(HEAD) + len(payload), HEAD, payload)
        if with_head
        else b"MSG s 1 %d\r\n%b\r\n" % (len(payload), payload)
        for payload, with_head in messages
    )
    taken, rest = cut([stream[at : at + size] for at in range(0, len(stream), size)])
    assert taken == [(b"s", b"", HEAD if with_head else b"", payload) for payload, with_head in messages]
    assert rest == []


def test_a_megabyte_in_many_reads_is_put_together_once_and_not_with_every_read() -> None:
    payload = bytes(1024 * 1024)
    stream = b"MSG s 1 %d\r\n%b\r\n" % (len(payload), payload)
    pieces = [stream[at : at + 512] for at in range(0, len(stream), 512)]
    taken: list[bytes] = []
    decoder = Decoder()
    decoder.handlers[b"1"] = lambda _subject, _reply, _head, body: taken.append(body)
    for number, piece in enumerate(pieces[:-1], start=1):
        decoder.feed(piece)
        assert len(decoder._held) == number
    decoder.feed(pieces[-1])
    assert taken == [payload]


@pytest.mark.parametrize("separator", [b"\x0b", b"\x0c", b"\x1c", "\u2028".encode(), b"\xa0"])
def test_a_reply_subject_of_a_stranger_is_one_word_whatever_it_holds(separator: bytes) -> None:
    reply = b"a" + separator + b"b"
    taken, rest = cut([b"MSG s 1 " + reply + b" 2\r\nhi\r\n"])
    assert taken == [(b"s", reply, b"", b"hi")]
    assert rest == []


def test_after_a_reset_the_half_of_a_message_is_forgotten() -> None:
    decoder = Decoder()
    assert decoder.feed(b"MSG s 1 100\r\nhalf") == []
    decoder.reset()
    assert decoder.feed(b"PING\r\n") == [Line(b"PING", b"")]


@pytest.mark.parametrize(
    "stream",
    [
        pytest.param(b"HELLO\r\n", id="an unknown operation"),
        pytest.param(b"\r\n", id="an empty line"),
        pytest.param(b"MSG s 1\r\n", id="no size"),
        pytest.param(b"MSG s 1 x\r\n", id="a size that is no number"),
        pytest.param(b"MSG s 1 -4\r\n\r\n\r\n", id="a negative size"),
        pytest.param(b"MSG s one 1\r\nx\r\n", id="a subscription id that is no number"),
        pytest.param(b"MSG 1\r\n\r\n\r\n", id="too few words"),
        pytest.param(b"HMSG s 1 9 4\r\nabcd\r\n", id="more headers than message"),
        pytest.param(b"MSG s 1 2\r\nabcd\r\n", id="a message longer than it says"),
        pytest.param(b"x" * (1024 * 1024 + 1), id="a line without an end"),
    ],
)
def test_what_is_not_the_protocol_is_a_fault_and_not_a_guess(stream: bytes) -> None:
    with pytest.raises(StreamError):
        Decoder().feed(stream)


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_the_fault(noise: bytes) -> None:
    decoder = Decoder()
    try:
        decoder.feed(noise)
        decoder.feed(noise)
    except StreamError:
        return


def test_headers_are_read_with_names_in_lower_case_and_values_trimmed() -> None:
    head = "NATS/1.0\r\nX-One: 1\r\nTRACE:no space\r\nX-Two:  grüße \r\n\r\n".encode()
    assert headers_of(head) == {"x-one": "1", "trace": "no space", "x-two": "grüße"}


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(b"NATS/1.0 503\r\n\r\n", id="a status alone"),
        pytest.param(b"NATS/1.0\r\nno colon\r\n\r\n", id="no colon"),
        pytest.param(b"NATS/1.0\r\nna me: x\r\n\r\n", id="a space in the name"),
        pytest.param("NATS/1.0\r\nnäme: x\r\n\r\n".encode(), id="a letter beyond ASCII in the name"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_what_is_no_header_is_left_out(head: bytes) -> None:
    assert headers_of(head) == {}


def test_bytes_that_are_no_utf8_do_not_lose_the_header() -> None:
    assert headers_of(b"NATS/1.0\r\na: \xff\r\n\r\n") == {"a": "\ufffd"}


names = st.text("abcXYZ019-_.!#$%&'*+^`|~", min_size=1, max_size=12)


@given(st.dictionaries(names, st.text(max_size=40), max_size=6))
def test_a_header_block_always_holds_the_headers_that_were_given_and_no_other(given: dict[str, str]) -> None:
    try:
        head = Encoder().head(given)
    except UnicodeEncodeError:
        return  # half of a surrogate pair is no text
    read = {name: value for name, _, value in (line.partition(": ") for line in _lines(head))}
    assert read.keys() == given.keys()
    assert headers_of(head) == {
        name.lower(): value.replace("\r", " ").replace("\n", " ").encode().strip().decode()
        for name, value in given.items()
    } or len({name.lower() for name in given}) < len(given)


def _lines(head: bytes) -> list[str]:
    return [line for line in head.decode().split("\r\n")[1:] if line]


@pytest.mark.parametrize("name", ["", " ", "a b", "a:b", "ü", "a\r\nb", "a\x00"])
def test_a_header_name_that_is_no_token_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="header"):
        Encoder().head({name: "x"})


@pytest.mark.parametrize("subject", ["", " ", "a b", "a\r\nPUB x 0", "a\tb", "a\x00", "a\u2028b"])
def test_a_subject_that_could_break_its_line_is_refused(subject: str) -> None:
    with pytest.raises(ValueError, match="subject"):
        Encoder().subject(subject)


def test_a_flood_of_different_names_and_subjects_is_not_kept() -> None:
    encoder = Encoder()
    for number in range(10_000):
        encoder.head({f"x-{number}": "v"})
        encoder.subject(f"s.{number}")
    assert len(encoder._names) <= 4096
    assert len(encoder._subjects) <= 4096


@pytest.mark.parametrize(
    ("reply", "head", "line"),
    [
        pytest.param(b"", b"", b"PUB s 4\r\nbody\r\n", id="a message"),
        pytest.param(b"r", b"", b"PUB s r 4\r\nbody\r\n", id="with a reply subject"),
        pytest.param(b"r", HEAD, b"HPUB s r 18 22\r\n" + HEAD + b"body\r\n", id="with headers"),
    ],
)
def test_a_publication_is_one_line_and_its_message(reply: bytes, head: bytes, line: bytes) -> None:
    assert publication(b"s", reply, head, b"body") == line
