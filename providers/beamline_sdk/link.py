"""The NATS connection that every component shares: how it is opened, watched and closed.

nats-py's defaults are made for a client that would rather send late than not at all. A request path wants the
opposite, so this module sets, in one place:

- ``pending_size=0``: nothing is buffered while the connection is down. A publish fails at once with
  ``OutboundBufferLimitError`` instead of being delivered after its caller has given up.
- reconnects without end (after 60 attempts the client would stay closed for good), with a delay that grows
  from 50 ms to 0.8 s and is drawn at random, so that a fleet does not return in step and nobody is away for
  long.
- a ping every 2 s, two of them outstanding: a frozen server is noticed after about 6 s, not after 6 minutes.

The server may still close a connection for good (credentials expired while connected, a protocol violation).
That is the ``on_closed`` callback: who gave one opens a new connection, or lets the process be restarted.

Closing has an order. :func:`close` first drains the subscriptions (no new work, what has arrived is handed
over), then waits for the work in flight (its answers still need the connection), then drains the connection
itself. Draining the connection alone loses answers; draining while it is reconnecting raises; each phase here
has a time limit.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import structlog
from nats import errors as nats_errors
from nats.aio.client import Client, Server
from nats.aio.subscription import Subscription

from .link_security import LinkSecurity, SecurityError

log = structlog.get_logger()

Callback = Callable[[], Awaitable[None]]
ErrorCallback = Callable[[Exception], Awaitable[None]]

CONNECT_TIMEOUT_S: Final = 2
PING_INTERVAL_S: Final = 2
MAX_OUTSTANDING_PINGS: Final = 2
FIRST_RECONNECT_S: Final = 0.05
MAX_RECONNECT_S: Final = 0.8
INITIAL_RETRY_S: Final = (0.15, 0.45)
"""Range from which a process draws its wait between attempts at the first connection."""
_LATE_ATTEMPT: Final = 6
"""From which on the delays grow no more."""
_MAX_KINDS: Final = 64
_SUBSCRIPTION_DRAIN_S: Final = 5.0
_CONNECTION_DRAIN_S: Final = 2.0


class LinkError(RuntimeError):
    """No connection; the message is one sentence for the person who started the process."""


@dataclass(frozen=True)
class LinkSettings:
    """Where NATS is. ``url`` may name several servers, separated by commas; ``name`` is shown in NATS'
    monitoring.
    """

    url: str
    name: str
    credentials_file: str | None = None
    security: LinkSecurity = field(default_factory=LinkSecurity.from_environment)
    """TLS files and nkey; default: what the environment names (:mod:`.link_security`)."""

    @property
    def servers(self) -> list[str]:
        """The addresses in ``url``, one each."""
        return [part.strip() for part in self.url.split(",") if part.strip()]

    @property
    def shown(self) -> str:
        """The addresses without user and password, for logs and messages."""
        return ", ".join(_without_secrets(server) for server in self.servers)


def reconnect_delay(attempt: int, draw: float) -> float:
    """Seconds to wait before reconnect ``attempt`` (from 1); ``draw`` is uniform in [0, 1).

    Between half and all of 50 ms doubled with each attempt, at most 0.8 s.
    """
    ceiling = min(MAX_RECONNECT_S, FIRST_RECONNECT_S * 2.0 ** min(attempt - 1, 16))
    return ceiling * (0.5 + draw / 2)


def closed_delay() -> float:
    """Seconds to wait before a connection that the server closed for good is followed by another."""
    return reconnect_delay(_LATE_ATTEMPT, random.random())  # noqa: S311 -- jitter, no secret


async def connect(
    settings: LinkSettings,
    *,
    on_reconnect: Callback | None = None,
    on_disconnect: Callback | None = None,
    on_error: ErrorCallback | None = None,
    on_closed: Callback | None = None,
    timeout_s: float | None = None,
) -> Client:
    """Opens a connection that comes back by itself.

    Tries for ever, or until cancelled, unless ``timeout_s`` is given. ``on_disconnect`` is called when the
    connection is lost, ``on_closed`` when the server closed it for good; neither is called by :func:`close`.

    Raises :class:`LinkError` where ``timeout_s`` has passed or the credentials can't be used.
    """
    if not settings.servers:
        raise LinkError("no NATS server is named: set NATS_URL, such as nats://127.0.0.1:4222")
    options = _credentials(settings)
    watch = _Watch(settings, on_reconnect, on_disconnect, on_error, on_closed)
    client = _Client(watch)
    wait: Any = random.uniform(*INITIAL_RETRY_S)  # noqa: S311 -- jitter; nats-py says int and takes any number
    try:
        async with asyncio.timeout(timeout_s):
            await client.connect(
                servers=settings.servers,
                name=settings.name,
                error_cb=watch.error,
                disconnected_cb=watch.disconnected,
                reconnected_cb=watch.reconnected,
                closed_cb=watch.closed,
                reconnect_to_server_handler=watch.next_server,
                pending_size=0,
                max_reconnect_attempts=-1,
                reconnect_time_wait=wait,
                connect_timeout=CONNECT_TIMEOUT_S,
                ping_interval=PING_INTERVAL_S,
                max_outstanding_pings=MAX_OUTSTANDING_PINGS,
                **options,
            )
    except TimeoutError:
        await _discard(client, watch)
        raise LinkError(f"no NATS server answers at {settings.shown}{watch.because}") from None
    except nats_errors.Error as error:
        await _discard(client, watch)
        raise LinkError(f"can't connect to NATS at {settings.shown}: {error}") from error
    except BaseException:
        await _discard(client, watch)
        raise
    watch.connected()
    return client


async def close(
    nc: Client,
    *,
    subscriptions: Collection[Subscription] = (),
    tasks: Collection[asyncio.Task[Any]] = (),
    grace_s: float = 10.0,
) -> None:
    """Ends ``subscriptions``, waits for ``tasks``, closes ``nc``: in this order, within ``grace_s`` seconds
    in all.

    ``tasks`` may be a live set: work that a subscription hands over while it drains is waited for as well.
    What is not done in time is cancelled and given a last turn to answer. Never raises, and needs no
    connection to work.
    """
    loop = asyncio.get_running_loop()
    ends_at = loop.time() + grace_s
    if isinstance(nc, _Client):
        nc.watch.expected = True
    if subscriptions and nc.is_connected:
        limit = min(_SUBSCRIPTION_DRAIN_S, grace_s / 2)
        await _quietly(asyncio.gather(*map(_drain, subscriptions), return_exceptions=True), limit)
    while pending := [task for task in tasks if not task.done()]:
        left = ends_at - _CONNECTION_DRAIN_S - loop.time()
        if left <= 0:
            log.warning("nats.drain_incomplete", tasks=len(pending), grace_s=grace_s)
            for task in pending:
                task.cancel()
            await asyncio.wait(pending, timeout=1.0)
            break
        await asyncio.wait(pending, timeout=left)
    if nc.is_connected and not nc.is_draining:
        await _quietly(nc.drain(), max(1.0, ends_at - loop.time()))
    if not nc.is_closed:
        await _quietly(nc.close(), 2.0)
    if isinstance(nc, _Client):
        nc.let_go()


async def _drain(subscription: Any) -> None:
    await subscription.drain()


async def _quietly(work: Awaitable[object], limit_s: float) -> None:
    """Awaits ``work`` for at most ``limit_s`` seconds; raises only this task's own cancellation.

    nats-py cancels its reconnect while it closes, and where the two meet the CancelledError comes out of
    ``close()`` although nobody cancelled us. The task's count of cancellations tells the two apart.
    """
    task = asyncio.current_task()
    cancels = 0 if task is None else task.cancelling()
    try:
        await asyncio.wait_for(work, limit_s)
    except (TimeoutError, OSError, nats_errors.Error) as error:
        log.debug("nats.close_incomplete", error=type(error).__name__)
    except asyncio.CancelledError:
        if task is None or task.cancelling() > cancels:
            raise
        log.debug("nats.close_incomplete", error="CancelledError")


async def _discard(client: _Client, watch: _Watch) -> None:
    watch.expected = True
    await _quietly(client.close(), 2.0)
    client.let_go()


class _Client(Client):
    """nats-py's client with six additions: who watches it, and hears why a server closed it for good, a
    ``flush`` that is a barrier, a ``flush`` that may end before its answer, no socket left behind by a
    reconnect that failed, and certificates that were renewed.

    nats-py writes the PING of a flush past the commands that still wait in its own buffer. Its PONG then
    proves nothing: a subscription may not have reached the server yet when it is called ready, and one that
    drains may still get messages after it has stopped to listen, which loses them. So what waits is written
    first.

    A flush that ran into its time limit leaves its future behind, cancelled. nats-py would set it when the
    PONG comes after all, fail at that, and give up a connection that only was slow: under load the worst
    moment to lose what is in flight.
    """

    def __init__(self, watch: _Watch) -> None:
        super().__init__()
        self.watch = watch
        self._read_at = watch.security.changed_at()

    async def _send_ping(self, future: asyncio.Future[Any] | None = None) -> None:
        if self._pending and self._transport is not None:
            waiting, self._pending, self._pending_data_size = self._pending, [], 0
            self._transport.writelines(waiting)
        await super()._send_ping(future)

    async def _process_pong(self) -> None:
        if self._pongs and self._pongs[0].done():
            self._pongs[0] = asyncio.get_running_loop().create_future()
        await super()._process_pong()

    async def _process_err(self, err_msg: str) -> None:
        await super()._process_err(err_msg)
        self.watch.heard(self.last_error)

    async def _connect_to_server(self, s: Any) -> None:
        """nats-py puts the new socket in the place of the one before and forgets that, open as it may be:
        a server that accepts and then refuses (credentials, a proxy without its server) would cost a socket
        for every attempt.
        """
        self.let_go()
        self._renew()
        await super()._connect_to_server(s)

    def _renew(self) -> None:
        """A process outlives its certificate: each new connection shows the one that its files hold now."""
        security = self.watch.security
        changed_at = security.changed_at()
        if changed_at == self._read_at or "tls" not in self.options:
            return
        self._read_at = changed_at
        try:
            self.options["tls"] = security.options()["tls"]
        except SecurityError as error:
            log.warning("nats.certificates_not_reread", error=str(error), serving="last good")

    def let_go(self) -> None:
        """Closes the socket, if there still is one; a ``close()`` that was cut short may have left it."""
        transport: Any = self._transport  # nats-py types no result
        if transport:
            transport.close()


class _Watch:
    """The callbacks of one connection. An outage is one log line per kind of error, however many attempts
    fail.
    """

    def __init__(
        self,
        settings: LinkSettings,
        on_reconnect: Callback | None,
        on_disconnect: Callback | None,
        on_error: ErrorCallback | None,
        on_closed: Callback | None,
    ) -> None:
        self.expected = False
        self.security = settings.security
        self._settings = settings
        self._on_reconnect = on_reconnect
        self._on_disconnect = on_disconnect
        self._on_error = on_error
        self._on_closed = on_closed
        self._attempt = 0
        self._seen: set[str] = set()
        self._last: Exception | None = None
        self._up = False

    @property
    def because(self) -> str:
        """The last error, as the end of a sentence."""
        return "" if self._last is None else f": {str(self._last) or type(self._last).__name__}"

    def connected(self) -> None:
        self._arrived()
        log.info("nats.connected", url=self._settings.shown)

    def _arrived(self) -> None:
        self._seen.clear()
        self._last = None
        self._up = True

    def next_server(self, servers: list[Server], _info: dict[str, Any]) -> tuple[Server | None, float]:
        self._attempt += 1
        delay = reconnect_delay(self._attempt, random.random())  # noqa: S311 -- jitter, no secret
        return min(servers, key=lambda server: server.reconnects), delay

    async def error(self, error: Exception) -> None:
        if not (isinstance(error, ConnectionResetError | BrokenPipeError) and _spoken(self._last)):
            self._last = error  # a server that refuses hangs up as well, and either may be seen first
        kind = _kind(error)
        if kind not in self._seen and not self.expected:
            if len(self._seen) < _MAX_KINDS:
                self._seen.add(kind)
            log.warning("nats.error", url=self._settings.shown, error=kind, connected=self._up)
        if self._on_error is not None:
            await self._on_error(error)

    def heard(self, error: Exception | None) -> None:
        """What the server said last; nats-py tells no callback of what it says before it hangs up."""
        self._last = error or self._last

    async def disconnected(self) -> None:
        self._up = False
        if self.expected:
            return
        log.warning("nats.disconnected", url=self._settings.shown)
        if self._on_disconnect is not None:
            await self._on_disconnect()

    async def reconnected(self) -> None:
        attempts, self._attempt = self._attempt, 0
        self._arrived()
        log.info("nats.reconnected", url=self._settings.shown, attempts=attempts)
        if self._on_reconnect is not None:
            await self._on_reconnect()

    async def closed(self) -> None:
        self._up = False
        if self.expected:
            return
        log.error("nats.closed", url=self._settings.shown, error=str(self._last) if self._last else None)
        if self._on_closed is not None:
            await self._on_closed()


def _kind(error: Exception) -> str:
    """What makes two errors the same to a reader: the type; of what the server says in words, the words."""
    return (str(error)[:200] if _spoken(error) else "") or type(error).__name__


def _spoken(error: Exception | None) -> bool:
    return isinstance(error, nats_errors.Error) and not isinstance(error, nats_errors.SlowConsumerError)


def _credentials(settings: LinkSettings) -> dict[str, Any]:
    try:
        options = settings.security.options()
    except SecurityError as error:
        raise LinkError(str(error)) from error
    if not settings.credentials_file:
        return options
    if "nkeys_seed" in options:
        raise LinkError("NATS_CREDENTIALS_FILE and NATS_NKEY_FILE are both set: keep one of the two")
    path = Path(settings.credentials_file)
    if not path.is_file():
        raise LinkError(f"the NATS credentials file {path} does not exist: check NATS_CREDENTIALS_FILE")
    if find_spec("nkeys") is None:
        raise LinkError("NATS credentials need the package nkeys: pip install 'nats-py[nkeys]'")
    return {**options, "user_credentials": str(path)}


def _without_secrets(server: str) -> str:
    parts = urlsplit(server if "://" in server else f"nats://{server}")
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}"
