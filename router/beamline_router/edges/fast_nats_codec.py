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

Handler = Callable[[bytes, bytes, bytes, bytes], None]
"""Gets (subject, reply subject, header block, payload) of one message; empty where there is none. Must not
raise.
"""

MAX_LINE: Final = 1024 * 1024
"""A line longer than this is no line. The server's own limit for what clients send is 4 KiB, but INFO names
all servers of a cluster.
"""
HEADER_LINE: Final = b"NATS/1.0"
NO_RESPONDERS: Final = b"NATS/1.0 503"
"""How the header block begins where the server itself answers that nobody listens."""

_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_SUBJECT: Final = re.compile(r"[^\s\x00-\x1f\x7f]+")
_BREAKS: Final = str.maketrans({"\r": " ", "\n": " "})
_MAX_KNOWN: Final = 4096
_M: Final = ord("M")
_H: Final = ord("H")


class ProtocolFault(ValueError):
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
        """Takes the next bytes; returns what no handler took. Raises :class:`ProtocolFault`."""
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
                    raise ProtocolFault("a line without an end")
                return self._hold(data, at, end - at + 1, rest)
            first = data[at]
            if first != _M and first != _H:
                rest.append(_line(data[at:line_end]))
                at = line_end + 2
                continue
            words = data[at:line_end].split(b" ")
            begin = line_end + 2
            try:
                # MSG subject sid [reply] size, HMSG subject sid [reply] head size
                stop = begin + int(words[-1])
                body = begin + int(words[-2]) if first == _H else begin
                reply = words[3] if len(words) == (6 if first == _H else 5) else b""
                subject, sid = words[1], words[2]
            except (ValueError, IndexError):
                raise ProtocolFault("a malformed line before a message") from None
            if end < stop + 2:
                return self._hold(data, at, stop + 2 - at, rest)
            if data[stop : stop + 2] != b"\r\n" or not begin <= body <= stop:
                raise ProtocolFault("a message that does not end where it should")
            at = stop + 2
            handler = handlers.get(sid)
            if handler is not None:
                handler(subject, reply, data[begin:body], data[body:stop])
            else:
                rest.append(Message(_number(sid), subject, reply, data[begin:body], data[body:stop]))
        return rest

    def _hold(
        self, data: bytes, at: int, needed: int, rest: list[Message | Line]
    ) -> list[Message | Line]:
        self._held.append(data[at:])
        self._size = len(data) - at
        self._needed = needed
        return rest


def _line(line: bytes) -> Line:
    operation, _, rest = line.strip().partition(b" ")
    operation = operation.upper()
    if operation not in {b"PING", b"PONG", b"INFO", b"+OK", b"-ERR"}:
        raise ProtocolFault("an unknown operation")
    return Line(operation, rest)


def _number(digits: bytes) -> int:
    if not digits.isdigit():
        raise ProtocolFault("a subscription id that is no number")
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


class Encoder:
    """Puts together what leaves. Header names and subjects are checked once and kept: there are few of
    each.
    """

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._subjects: dict[str, bytes] = {}

    def head(self, headers: Mapping[str, str]) -> bytes:
        """The header block of a message, empty without headers. Raises :class:`ValueError` for a name that
        is no token. A value can neither end its line nor add another: line breaks become spaces.
        """
        if not headers:
            return b""
        names = self._names
        lines = ["NATS/1.0"]
        for name, value in headers.items():
            lines.append((names.get(name) or self._name(name)) + value)
        lines.append("\r\n")
        text = "\r\n".join(lines)
        breaks = len(lines)
        if text.count("\r") != breaks or text.count("\n") != breaks:
            return self.head({name: value.translate(_BREAKS) for name, value in headers.items()})
        return text.encode()

    def subject(self, subject: str) -> bytes:
        """The subject's bytes. Raises :class:`ValueError` for one that would break its line."""
        known = self._subjects.get(subject)
        if known is None:
            if not _SUBJECT.fullmatch(subject):
                raise ValueError("NATS can't carry this subject")
            if len(self._subjects) >= _MAX_KNOWN:
                self._subjects.clear()
            known = self._subjects[subject] = subject.encode()
        return known

    def _name(self, name: str) -> str:
        if not _TOKEN.fullmatch(name):
            raise ValueError("NATS can't carry this header name")
        if len(self._names) >= _MAX_KNOWN:
            self._names.clear()
        self._names[name] = start = f"{name}: "
        return start


def publication(subject: bytes, reply: bytes, head: bytes, payload: bytes) -> bytes:
    """PUB or HPUB. Subjects must have come from :meth:`Encoder.subject` or from a message that arrived."""
    if head:
        size = len(head)
        return b"HPUB %b %b %d %d\r\n%b%b\r\n" % (subject, reply, size, size + len(payload), head, payload)
    if reply:
        return b"PUB %b %b %d\r\n%b\r\n" % (subject, reply, len(payload), payload)
    return b"PUB %b %d\r\n%b\r\n" % (subject, len(payload), payload)
