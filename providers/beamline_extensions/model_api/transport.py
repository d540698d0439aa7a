"""The way out to a model API: it connects only where it may.

Every call of a provider goes through here. Idle connections are kept per origin (the last one used first),
new ones are opened to addresses that :class:`.addresses.AddressRule` allows, and nothing is ever followed: a
redirect is an answer like any other. Proxies from the environment are not used, because a proxy would resolve
names by itself.

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
from .calls import Origin, Written
from .connection import Connection

IDLE_S: Final = 4.0
"""An idle connection is not used after this; servers close theirs after 5 s or more."""
MAX_IDLE: Final = 512
CONNECT_S: Final = 5.0

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


class ForbiddenAddressError(httpx2.ConnectError):
    """The name leads to an address that must not be connected to."""


async def resolve(host: str, port: int) -> Sequence[str]:
    """Every address of ``host``, by the system's resolver. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class ModelApiTransport:
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

    async def ask(self, call: Written, body: bytes, connect_s: float = CONNECT_S) -> httpx2.Response:
        """The answer to ``call`` with this body once its head is there; the caller reads or closes it.

        A whole answer that has arrived with its head is read already. There is no time limit in here but
        ``connect_s`` for a new connection: the caller's own ends all of it. Raises
        :class:`httpx2.TransportError`.
        """
        origin = call.origin
        connection = self._take(origin) or await self._connect(origin, connect_s)
        self._busy.add(connection)
        try:
            await connection.ask(b"%b%d\r\n\r\n" % (call.head, len(body)), body)
            content = await connection.read() if connection.complete else None
        except BaseException:
            self._drop(connection)
            raise
        if content is not None:
            self.release(origin, connection)
            return httpx2.Response(
                connection.status, headers=connection.headers, content=content, request=call.request
            )
        stream = _Body(self, origin, connection)
        return httpx2.Response(
            connection.status, headers=connection.headers, stream=stream, request=call.request
        )

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

    def __init__(self, owner: ModelApiTransport, origin: Origin, connection: Connection) -> None:
        self._owner = owner
        self._origin = origin
        self._connection = connection
        self._closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while not self._closed and (data := await self._connection.read()):
            yield data

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            self._owner.release(self._origin, self._connection)
