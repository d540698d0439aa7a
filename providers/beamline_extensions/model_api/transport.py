"""The way out to a model API: an httpx2 transport that connects only where it may.

The SDKs' client hands every request to this transport. It keeps idle connections per origin (the last one
used first), opens new ones to addresses that :class:`.addresses.AddressRule` allows, and never follows
anything: a redirect is an answer like any other. Proxies from the environment are not used, because a proxy
would resolve names by itself.

Name resolution happens here, once per new connection, and the connection is made to an address from that
very answer; for TLS the certificate is checked against the name.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final

import httpx2

from .addresses import AddressRule, first_fault
from .connection import Connection

IDLE_S: Final = 4.0
"""An idle connection is not used after this; servers close theirs after 5 s or more."""
MAX_IDLE: Final = 512
CONNECT_S: Final = 5.0

Origin = tuple[str, str, int]
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


class ForbiddenAddressError(httpx2.ConnectError):
    """The name leads to an address that must not be connected to."""


async def resolve(host: str, port: int) -> Sequence[str]:
    """Every address of ``host``, by the system's resolver. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class ModelApiTransport(httpx2.AsyncBaseTransport):
    """``resolver`` turns a host into addresses; tests give one that rebinds."""

    def __init__(
        self, rule: AddressRule, *, resolver: Resolve = resolve, tls: ssl.SSLContext | None = None
    ) -> None:
        self._rule = rule
        self._resolve = resolver
        self._tls = tls
        self._idle: dict[Origin, list[Connection]] = {}
        self._busy: set[Connection] = set()

    @property
    def open_connections(self) -> int:
        """Connections that exist, idle or busy."""
        return len(self._busy) + sum(map(len, self._idle.values()))

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """See httpx2. Raises :class:`httpx2.TransportError`."""
        url = request.url
        origin = (url.scheme, url.host, url.port or (443 if url.scheme == "https" else 80))
        timeout = request.extensions.get("timeout") or {}
        body = await request.aread()
        connection = self._take(origin) or await self._connect(origin, timeout.get("connect") or CONNECT_S)
        self._busy.add(connection)
        try:
            async with asyncio.timeout(timeout.get("read")):
                await connection.ask(_head(request), body)
        except TimeoutError:
            self._drop(connection)
            raise httpx2.ReadTimeout("no answer in time", request=request) from None
        except BaseException:
            self._drop(connection)
            raise
        stream = _Body(self, origin, connection, timeout.get("read"))
        return httpx2.Response(connection.status, headers=connection.headers, stream=stream)

    def release(self, origin: Origin, connection: Connection) -> None:
        """An answer has been read, or its reader has left."""
        self._busy.discard(connection)
        if not connection.finish():
            return
        idle = self._idle.setdefault(origin, [])
        connection.idle_since = asyncio.get_running_loop().time()
        if len(idle) < MAX_IDLE:
            idle.append(connection)
        else:
            connection.abort()

    async def aclose(self) -> None:
        """Closes every connection, the busy ones too."""
        for connection in [*self._busy, *(one for idle in self._idle.values() for one in idle)]:
            connection.abort()
        self._busy.clear()
        self._idle.clear()
        await asyncio.sleep(0)  # lets the loop run connection_lost, so that no socket outlives the transport

    def _take(self, origin: Origin) -> Connection | None:
        idle = self._idle.get(origin)
        if not idle:
            return None
        oldest = asyncio.get_running_loop().time() - IDLE_S
        while idle and (idle[0].idle_since < oldest or not idle[0].usable):
            idle.pop(0).abort()
        while idle:
            connection = idle.pop()
            if connection.usable:
                return connection
            connection.abort()
        return None

    def _drop(self, connection: Connection) -> None:
        self._busy.discard(connection)
        connection.abort()

    async def _connect(self, origin: Origin, seconds: float) -> Connection:
        scheme, host, port = origin
        try:
            async with asyncio.timeout(seconds):
                addresses = await self._resolve(host, port)
                fault = first_fault(self._rule, addresses)
                if fault is not None or not addresses:
                    raise ForbiddenAddressError(f"the host leads to {fault or 'no address'}")
                return await self._open(scheme, host, port, addresses)
        except TimeoutError:
            raise httpx2.ConnectTimeout("no connection in time") from None
        except OSError as error:
            raise httpx2.ConnectError(f"no connection: {type(error).__name__}") from error

    async def _open(self, scheme: str, host: str, port: int, addresses: Sequence[str]) -> Connection:
        loop = asyncio.get_running_loop()
        tls = self._context() if scheme == "https" else None
        for number, address in enumerate(addresses, 1):
            try:
                _, connection = await loop.create_connection(
                    Connection, address, port, ssl=tls, server_hostname=host if tls else None
                )
            except OSError:
                if number == len(addresses):
                    raise
            else:
                return connection
        raise httpx2.ConnectError("no connection")

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = httpx2.create_ssl_context()
            self._tls.set_alpn_protocols(["http/1.1"])
        return self._tls


class _Body(httpx2.AsyncByteStream):
    """The body of one answer; closing it gives the connection back, or closes it when something is unread."""

    def __init__(
        self, owner: ModelApiTransport, origin: Origin, connection: Connection, read_s: float | None
    ) -> None:
        self._owner = owner
        self._origin = origin
        self._connection = connection
        self._read_s = read_s
        self._closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while not self._closed:
            if self._connection.complete:
                data = await self._connection.read()
            else:
                try:
                    async with asyncio.timeout(self._read_s):
                        data = await self._connection.read()
                except TimeoutError:
                    raise httpx2.ReadTimeout("the answer stopped") from None
            if not data:
                return
            yield data

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            self._owner.release(self._origin, self._connection)


def _head(request: httpx2.Request) -> bytes:
    lines = [b"%b %b HTTP/1.1" % (request.method.encode("ascii"), request.url.raw_path)]
    for name, value in request.headers.raw:
        if name.lower() not in {b"accept-encoding", b"connection"}:
            lines.append(b"%b: %b" % (name, value))
    head = b"\r\n".join(lines)
    if head.count(b"\n") != len(lines) - 1 or b"\0" in head:
        raise httpx2.LocalProtocolError("a header holds a line break", request=request)
    return head + b"\r\naccept-encoding: identity\r\n\r\n"
