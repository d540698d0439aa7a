"""kopf as the source of events, and nothing else.

kopf knows how to keep watches alive: lists in pages, bookmarks, 410, silent streams, rotating credentials.
That is all it is asked for, through a session that leaves out what it would not survive
(:mod:`.kopf_session`). Its handlers here are plain spies (``on.event``): they write no annotation, no
finalizer and no progress to any object, and peering is off (the Lease decides who leads).

It runs in a thread with a loop of its own, for two reasons: when kopf stops, it cancels every task of its
loop that it did not find there at its start, and in the main thread it takes over SIGTERM. Events cross over
in order, through a queue that wakes the loop once for all that came meanwhile (each wake-up is a system
call, and the two threads take turns), and are taken in a few at a time. A kopf that dies is reported by
:attr:`KopfWatch.failure`; the process then ends and is restarted: a blind operator is worse than none.

A watch may also be open and tell nothing, and nobody can know but by the silence. So one that said nothing
for :data:`SILENCE_S` is opened again; with the pause before that, what it kept back is acted upon within
five seconds. It costs an idle API server two requests a second.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import ssl
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final, cast

import aiohttp
import kopf
import structlog

from beamline_contract.names import GROUP, VERSION
from beamline_contract.objects import PLURAL
from beamline_sdk.deployment.kube_api import KubeApi
from beamline_sdk.deployment.kubernetes import LABEL_SELECTOR
from beamline_sdk.deployment.manifests import PATHS, resource_of

from .kopf_session import RECONNECT_S, History, WatchSession

START_TIMEOUT_S: Final = 30.0
SILENCE_S: Final = 4.0
"""A watch that said nothing for so long, no bookmark either, is opened again from where it stood."""
REQUEST_S: Final = 10.0
CONNECT_S: Final = 3.0
"""kopf waits five minutes for the answer to a list, and for a connection as long as the kernel does."""
STUCK_S: Final = 60.0
"""Beyond the time after which a silent watch is opened again."""
STOP_TIMEOUT_S: Final = 10.0
AT_A_TIME: Final = 32
"""Events that are taken in before the loop turns."""
PAGE: Final = 500
TLS_GOODBYE_S: Final = 0.25
"""aiohttp closes TLS connections in the background; a loop that ends before leaves their sockets open."""
IDENTITY: Final = "beamline-operator"
"""kopf's name for us. Left to itself it asks for the user's name, and the user of a pod has none."""

_log = structlog.get_logger()


class KopfWatch:
    """Watches both custom resources and the objects that Beamline made for them.

    ``on_object`` gets (document, deleted) and ``on_owned`` (kind, document, deleted), in the loop that called
    :meth:`start`.
    """

    def __init__(
        self,
        api: KubeApi,
        *,
        namespaces: Sequence[str] = (),
        silence_s: float = SILENCE_S,
        on_object: Callable[[Mapping[str, Any], bool], None],
        on_owned: Callable[[str, Mapping[str, Any], bool], None],
    ) -> None:
        self.failure: str | None = None
        self.on_failure: Callable[[str], None] = lambda reason: None
        self.on_gap: Callable[[], None] = lambda: None
        """Something may have been deleted without a word; at each start, too."""
        self.events = 0
        self.last_event: float | None = None
        self._api = api
        self._namespaces = tuple(namespaces)
        self._history = History()
        self._silence_s = silence_s
        self._on_object = on_object
        self._on_owned = on_owned
        self._inbox: deque[tuple[Callable[[Mapping[str, Any], bool], None], Any]] = deque()
        self._rung = False
        """Whether the loop knows that something is in the inbox. Set before, cleared after looking: a letter
        that comes in between rings once too often, never once too few.
        """
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._started = 0.0
        self._inner: asyncio.AbstractEventLoop | None = None
        self._inner_stop: asyncio.Event | None = None

    def blind(self, now: float) -> str | None:
        """Why nothing is seen any more, at monotonic ``now``; None where the watches go on. An API server
        that does not answer is no reason: it is asked again and again.
        """
        if self.failure is not None or self._thread is None:
            return self.failure
        alive = dict(self._history.alive) or {"every resource": self._started}
        path, moment = min(alive.items(), key=lambda one: one[1])
        idle = now - max(moment, self._started)
        if idle < self._silence_s + STUCK_S:
            return None
        return f"the watch of {path} has asked for nothing and heard nothing for {idle:.0f} s: it is stuck"

    async def start(self) -> None:
        """Returns once kopf is up; its watches open right after. Raises ``RuntimeError`` where it does not
        start.
        """
        self._loop = asyncio.get_running_loop()
        self._started = self._loop.time()
        ready = asyncio.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), name="kopf", daemon=True)
        self._thread.start()
        try:
            await asyncio.wait_for(ready.wait(), START_TIMEOUT_S)
        except TimeoutError:
            raise RuntimeError("kopf did not start within 30 seconds") from None
        if self.failure is not None:
            raise RuntimeError(self.failure)

    async def stop(self) -> None:
        """Ends the watches and the thread."""
        if self._inner is not None and self._inner_stop is not None and not self._inner.is_closed():
            self._inner.call_soon_threadsafe(self._inner_stop.set)
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, STOP_TIMEOUT_S)
            self._thread = None

    def _run(self, ready: asyncio.Event) -> None:
        logging.getLogger("kopf").setLevel(logging.WARNING)
        # It warns that it can't take over the signals, which is what its own thread is for.
        logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)
        try:
            asyncio.run(self._operate(ready))
        except Exception as error:  # noqa: BLE001 -- the thread's last words, whatever they are
            self._fail(f"the watch ended: {error}", ready)
        else:
            if self._inner_stop is None or not self._inner_stop.is_set():
                self._fail("the watch ended by itself", ready)

    async def _operate(self, ready: asyncio.Event) -> None:
        self._inner = asyncio.get_running_loop()
        self._inner_stop = asyncio.Event()
        started = asyncio.Event()
        tell = asyncio.create_task(self._tell_when(started, ready))
        try:
            await kopf.operator(
                registry=self._registry(),
                settings=_settings(self._silence_s),
                standalone=True,
                identity=IDENTITY,  # type: ignore[arg-type]  # kopf does not export its own name for str
                clusterwide=not self._namespaces,
                namespaces=self._namespaces,
                stop_flag=self._inner_stop,
                ready_flag=started,
            )
        finally:
            tell.cancel()
            await asyncio.sleep(TLS_GOODBYE_S)

    async def _tell_when(self, started: asyncio.Event, ready: asyncio.Event) -> None:
        await started.wait()
        self._cross(ready.set)

    def _registry(self) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()

        async def spy(event: Any, **_: Any) -> None:
            self._post(self._on_object, event)

        def spy_on(kind: str) -> Callable[..., Awaitable[None]]:
            to = partial(self._on_owned, kind)

            async def spy_owned(event: Any, **_: Any) -> None:
                self._post(to, event)

            return spy_owned

        async def login(**_: Any) -> kopf.AiohttpSession:
            return _session(_Login(**await _credentials(self._api)), self._gap, self._history)

        for plural in PLURAL.values():
            kopf.on.event(GROUP, VERSION, plural, registry=registry, id=f"watch-{plural}")(spy)
        for kind in PATHS:
            group, version, plural = resource_of(kind)
            kopf.on.event(group, version, plural, registry=registry, id=f"watch-{plural}")(spy_on(kind))
        kopf.on.login(registry=registry, id="login")(login)
        return registry

    def _gap(self) -> None:
        """In kopf's thread."""
        self._cross(self.on_gap)

    def _post(self, to: Callable[[Mapping[str, Any], bool], None], event: Any) -> None:
        """In kopf's thread."""
        self._inbox.append((to, event))
        if not self._rung:
            self._rung = True
            self._cross(self._empty)

    def _empty(self) -> None:
        for _ in range(AT_A_TIME):
            if not self._inbox:
                break
            to, event = self._inbox.popleft()
            self._deliver(to, dict(event["object"]), event["type"] == "DELETED")
        else:
            self._cross(self._empty)
            return
        self._rung = False
        if self._inbox:
            self._rung = True
            self._cross(self._empty)

    def _deliver(
        self, to: Callable[[Mapping[str, Any], bool], None], document: Mapping[str, Any], deleted: bool
    ) -> None:
        self.events += 1
        self.last_event = asyncio.get_running_loop().time()
        try:
            to(document, deleted)
        except Exception:  # noqa: BLE001 -- one strange object must not stop the stream of the others
            _log.exception("watch.event_failed", kind=document.get("kind"))

    def _cross(self, callback: Callable[..., None], *args: Any) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(callback, *args)

    def _fail(self, reason: str, ready: asyncio.Event) -> None:
        self.failure = reason
        _log.error("watch.failed", reason=reason)
        self._cross(ready.set)
        self._cross(self.on_failure, reason)


def _settings(silence_s: float) -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.peering.standalone = True
    settings.scanning.disabled = True
    settings.watching.chunk_size = PAGE
    settings.watching.inactivity_timeout = silence_s
    settings.watching.reconnect_backoff = RECONNECT_S
    settings.networking.error_backoffs = _Backoffs()
    settings.networking.request_timeout = REQUEST_S
    settings.networking.connect_timeout = CONNECT_S
    settings.persistence.diffbase_storage = _NoDiff()
    for kind in PATHS:
        settings.watching.label_selectors[resource_of(kind)[2]] = LABEL_SELECTOR
    settings.queueing.idle_timeout = 1.0
    return settings


class _Backoffs(Iterable[float]):
    """Seconds between attempts at a request of kopf's own: for ever, and never late by more than a few."""

    def __iter__(self) -> Iterator[float]:
        return itertools.chain((1.0,), itertools.repeat(2.0))


class _NoDiff(kopf.DiffBaseStorage):
    """Spies need no difference to the last time. kopf would copy each object several times to find it."""

    def build(
        self,
        *,
        body: kopf.Body,
        extra_fields: Iterable[Any] | None = None,
    ) -> Any:
        return {}

    def fetch(self, *, body: kopf.Body) -> Any:
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: Any) -> None:
        """Nothing is kept."""


class _Login(kopf.ConnectionInfo):
    """A login that accepts the CA of any cluster, as :class:`KubeApi` does and for the same reason."""

    def as_ssl_context(self) -> ssl.SSLContext:
        context = super().as_ssl_context()
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        return context


def _session(info: kopf.ConnectionInfo, on_gap: Callable[[], None], history: History) -> kopf.AiohttpSession:
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=info.as_ssl_context()), headers=info.as_http_headers()
    )
    return kopf.AiohttpSession(
        server=info.server,
        aiohttp_session=cast(aiohttp.ClientSession, WatchSession(session, on_gap, history)),
    )


async def _credentials(api: KubeApi) -> dict[str, Any]:
    """What kopf needs to log in, from the client that is logged in already; asked for again when a token
    expired.
    """
    configuration = api.configuration
    token = await configuration.get_api_key_with_prefix("BearerToken")
    scheme, _, value = (token or "").rpartition(" ")
    return {
        "server": configuration.host,
        "ca_path": configuration.ssl_ca_cert,
        "insecure": not configuration.verify_ssl,
        "certificate_path": configuration.cert_file,
        "private_key_path": configuration.key_file,
        "scheme": scheme or None,
        "token": value or None,
    }
