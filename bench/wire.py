"""The cheapest NATS client that can answer and ask, so that what surrounds the measured process is never
the bottleneck.

It speaks just enough of the protocol for one connection on loopback: CONNECT, SUB, PUB, PING, and MSG /
HMSG in; one write per turn of the loop. No reconnects, no checks, no errors beyond ending: it is for
benchmarks only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

Handler = Callable[[bytes, bytes, bytes], None]
"""Gets (subject, reply subject, payload) of one message."""


class Wire(asyncio.Protocol):
    """One connection. ``on_message`` runs inside of the read; what it publishes leaves in one write after
    it.
    """

    def __init__(self, on_message: Handler) -> None:
        self._on_message = on_message
        self._buffer = b""
        self._out: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @classmethod
    async def connect(cls, url: str, on_message: Handler) -> Wire:
        host, _, port = url.removeprefix("nats://").partition(":")
        _, wire = await asyncio.get_running_loop().create_connection(lambda: cls(on_message), host, int(port))
        wire.send(b'CONNECT {"verbose":false,"headers":true,"no_responders":false}\r\nPING\r\n')
        await wire.ready
        return wire

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(None)

    def subscribe(self, subject: str, queue: str = "") -> None:
        self.send(f"SUB {subject} {queue} 1\r\n".encode())

    def publish(self, subject: bytes, reply: bytes, payload: bytes) -> None:
        """Queued until the end of the current read; call :meth:`flush` outside of one."""
        self._out.append(b"PUB %b %b %d\r\n%b\r\n" % (subject, reply, len(payload), payload))

    def flush(self) -> None:
        out, self._out = self._out, []
        if out:
            self.send(b"".join(out))

    def send(self, data: bytes) -> None:
        assert self._transport is not None
        self._transport.write(data)

    def close(self) -> None:
        assert self._transport is not None
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        at = 0
        while (end := buffer.find(b"\r\n", at)) >= 0:
            line = buffer[at:end]
            if line[:4] == b"MSG " or line[:5] == b"HMSG ":
                words = line.split(b" ")
                total = int(words[-1])
                begin, stop = end + 2, end + 2 + total
                if len(buffer) < stop + 2:
                    break
                with_headers = line[:1] == b"H"
                reply = words[3] if len(words) > (5 if with_headers else 4) else b""
                skip = int(words[-2]) if with_headers else 0
                self._on_message(words[1], reply, buffer[begin + skip : stop])
                at = stop + 2
                continue
            at = end + 2
            if line == b"PING":
                self._out.append(b"PONG\r\n")
            elif line == b"PONG" and not self.ready.done():
                self.ready.set_result(None)
        self._buffer = buffer[at:]
        self.flush()
