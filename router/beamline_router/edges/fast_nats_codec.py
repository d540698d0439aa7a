"""The NATS client protocol as bytes: what arrives is cut into messages and lines, what leaves is put
together.

No socket, no loop, no clock: :class:`Decoder` is fed whatever a read returned and may be fed one byte at a
time. A message whose subscription has a handler is handed over at once, on the spot; everything else comes
back as a list in the order of arrival, for who can take its time. Until a message or line is whole, pieces
are only collected: nothing is scanned or copied twice however many reads a large payload takes.

The words of a line are separated by single spaces, as nats-server writes them, and by nothing else: a reply
subject is another client's choice and may hold a form feed or a vertical tab, which must not cut it in two.

Reference: https://docs.nats.io/reference/reference-protocols/nats-protocol
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from ..core.headers import HeaderLines

Handler = Callable[[bytes, bytes, bytes, bytes], None]
"""Gets (subject, reply subject, header block, payload) of one message; empty where there is none. Must not
raise.
"""

MAX_LINE: Final = 1024 * 1024
"""A line longer than this is no line. The server's own limit for what clients send is 4 KiB, but INFO names
all servers of a cluster.
"""
NO_RESPONDERS: Final = b"NATS/1.0 503"
"""How the header block begins where the server itself answers that nobody listens."""

_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_SUBJECT: Final = re.compile(r"[^\s\x00-\x1f\x7f]+")
_BREAKS: Final = str.maketrans({"\r": " ", "\n": " "})
_MAX_KNOWN: Final = 4096
_H: Final = ord("H")
_MESSAGE: Final = frozenset(b"MH")
_WORDS_MORE: Final = (0, 1)
FRAME: Final = len(b"NATS/1.0\r\n\r\n")
"""Bytes of a header block that are not its lines."""


class StreamError(ValueError):
    """What arrived is not the NATS protocol; the connection can't be used any more."""


class Message(NamedTuple):
    """A message whose subscription has no handler here."""

    sid: int
    subject: bytes
    reply: bytes
    head: bytes
    payload: bytes


class Line(NamedTuple):
    """PING, PONG, INFO, +OK or -ERR (upper case), and the rest of the line."""

    operation: bytes
    rest: bytes


class Decoder:
    """Cuts a stream of bytes. ``handlers`` maps a subscription's id, in digits, to its handler."""

    def __init__(self) -> None:
        self.handlers: dict[bytes, Handler] = {}
        self._held: list[bytes] = []
        self._size = 0
        self._needed = 0

    def reset(self) -> None:
        """Forgets an unfinished message: what comes next is the beginning of another stream."""
        self._held.clear()
        self._size = self._needed = 0

    def feed(self, data: bytes) -> list[Message | Line]:
        """Takes the next bytes; returns what no handler took. Raises :class:`StreamError`."""
        if self._held:
            self._held.append(data)
            self._size += len(data)
            if self._size < self._needed:
                return []
            data = b"".join(self._held)
            self.reset()
        rest: list[Message | Line] = []
        handlers = self.handlers
        at, end = 0, len(data)
        while at < end:
            line_end = data.find(b"\r\n", at)
            if line_end < 0:
                if end - at > MAX_LINE:
                    raise StreamError("a line without an end")
                return self._hold(data, at, end - at + 1, rest)
            first = data[at]
            if first not in _MESSAGE:
                rest.append(_line(data[at:line_end]))
                at = line_end + 2
                continue
            words = data[at:line_end].split(b" ")
            begin = line_end + 2
            with_head = first == _H
            try:
                # MSG subject sid [reply] size, HMSG subject sid [reply] head size
                stop = begin + int(words[-1])
                body = begin + int(words[-2]) if with_head else begin
            except (ValueError, IndexError):
                raise StreamError("a size that is no number") from None
            extra = len(words) - (5 if with_head else 4)
            if extra not in _WORDS_MORE:
                raise StreamError("a malformed line before a message")
            subject, sid, reply = words[1], words[2], words[3] if extra else b""
            if end < stop + 2:
                return self._hold(data, at, stop + 2 - at, rest)
            if data[stop : stop + 2] != b"\r\n" or not begin <= body <= stop:
                raise StreamError("a message that does not end where it should")
            at = stop + 2
            handler = handlers.get(sid)
            if handler is not None:
                handler(subject, reply, data[begin:body], data[body:stop])
            else:
                rest.append(Message(_number(sid), subject, reply, data[begin:body], data[body:stop]))
        return rest

    def _hold(self, data: bytes, at: int, needed: int, rest: list[Message | Line]) -> list[Message | Line]:
        self._held.append(data[at:])
        self._size = len(data) - at
        self._needed = needed
        return rest


def _line(line: bytes) -> Line:
    operation, _, rest = line.strip().partition(b" ")
    operation = operation.upper()
    if operation not in {b"PING", b"PONG", b"INFO", b"+OK", b"-ERR"}:
        raise StreamError("an unknown operation")
    return Line(operation, rest)


def _number(digits: bytes) -> int:
    if not digits.isdigit():
        raise StreamError("a subscription id that is no number")
    return int(digits)


def headers_of(head: bytes) -> dict[str, str]:
    """The headers in a block, names in lower case; the status line and what is no header are left out."""
    found: dict[str, str] = {}
    for line in head.split(b"\r\n")[1:]:
        name, colon, value = line.partition(b":")
        if colon and name.isascii():
            key = name.decode("ascii").strip().lower()
            if key and not any(map(str.isspace, key)):
                found[key] = value.strip().decode("utf-8", "replace")
    return found


class _Names(dict[str, str]):
    """Header names, checked and ready for their values. There are few; a flood of them is not kept."""

    def __missing__(self, name: str) -> str:
        if not _TOKEN.fullmatch(name):
            raise ValueError("NATS can't carry this header name")
        if len(self) >= _MAX_KNOWN:
            self.clear()
        self[name] = start = f"\r\n{name}: "
        return start


class _Subjects(dict[str, bytes]):
    """Subjects, checked and encoded: a router's come from its table."""

    def __missing__(self, subject: str) -> bytes:
        if not _SUBJECT.fullmatch(subject):
            raise ValueError("NATS can't carry this subject")
        if len(self) >= _MAX_KNOWN:
            self.clear()
        self[subject] = known = subject.encode()
        return known


class Encoder:
    """Puts together what leaves. Header names and subjects are checked and encoded once."""

    def __init__(self) -> None:
        self._names = _Names()
        self._subjects = _Subjects()

    def head(self, headers: Mapping[str, str]) -> bytes:
        """The header block of a message, empty without headers. Raises :class:`ValueError` for a name that
        is no token. A value can neither end its line nor add another: line breaks become spaces.
        """
        if type(headers) is HeaderLines:
            return f"NATS/1.0\r\n{headers.text}\r\n".encode()
        if not headers:
            return b""
        names = self._names
        text = "".join([names[name] + value for name, value in headers.items()])
        breaks = len(headers)
        if text.count("\r") != breaks or text.count("\n") != breaks:
            text = "".join([names[name] + value.translate(_BREAKS) for name, value in headers.items()])
        return f"NATS/1.0{text}\r\n\r\n".encode()

    def subject(self, subject: str) -> bytes:
        """The subject's bytes. Raises :class:`ValueError` for one that would break its line."""
        return self._subjects[subject]


class Starts(dict[str, str]):
    """How the line of a request begins, by subject. ``inbox``: what replies come to, less the number."""

    def __init__(self, encoder: Encoder, inbox: str) -> None:
        super().__init__()
        self._encoder = encoder
        self._inbox = inbox

    def __missing__(self, subject: str) -> str:
        checked = self._encoder.subject(subject).decode()
        if len(self) >= _MAX_KNOWN:
            self.clear()
        self[subject] = start = f"HPUB {checked} {self._inbox}"
        return start


def request_message(start: str, number: int, text: str, payload: bytes) -> bytes:
    """The HPUB of a request: ``start`` from :class:`Starts`, to which its number is added, and the ASCII text
    of its :class:`HeaderLines`.

    The same bytes as :meth:`Encoder.head` and :func:`publication` make, with one formatting less: a router
    does this for each step.
    """
    size = len(text) + FRAME
    line = f"{start}{number} {size} {size + len(payload)}\r\nNATS/1.0\r\n{text}\r\n"
    return b"%b%b\r\n" % (line.encode(), payload)


def publication(subject: bytes, reply: bytes, head: bytes, payload: bytes) -> bytes:
    """PUB or HPUB. Subjects must have come from :meth:`Encoder.subject` or from a message that arrived."""
    if head:
        size = len(head)
        if not reply:
            return b"HPUB %b %d %d\r\n%b%b\r\n" % (subject, size, size + len(payload), head, payload)
        return b"HPUB %b %b %d %d\r\n%b%b\r\n" % (subject, reply, size, size + len(payload), head, payload)
    if reply:
        return b"PUB %b %b %d\r\n%b\r\n" % (subject, reply, len(payload), payload)
    return b"PUB %b %d\r\n%b\r\n" % (subject, len(payload), payload)
