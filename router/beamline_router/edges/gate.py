"""Who may come in: the key of a request, the limits of its tenant, and whether the router can take more now.

Both doors ask :meth:`Gate.admit` before they look at a body, so that a refusal costs as little as possible,
and :class:`.serving.Serving` asks :meth:`Gate.take` once the tenant is known, and :meth:`Gate.give` when the
request has ended. Nothing here waits, and no message, metric or log line ever holds a key.

Without any configured key only callers on this machine are served over HTTP; what a reverse proxy on this
machine passes on comes from elsewhere, and so does what a browser here sends for somebody else's page: it has
a foreign ``Origin``, or (DNS rebinding) a foreign ``Host``. Who may publish on NATS has been let in by NATS
itself, so a key is checked there where one is given, and required only where the settings say so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from ipaddress import ip_address
from socket import gethostname
from typing import Any, Final
from urllib.parse import urlsplit

from prometheus_client import Gauge

from beamline_contract.errors import ErrorCode, WireError

from ..core.api_keys import LOOPBACK_ONLY, NO_KEY, ApiKey, KeyRing, key_in
from ..core.overload import Shedder
from ..core.tenant_limits import Accounts, Limits, Refusal, TenantLimits
from .refusal import Refusal as Shed
from .tallies import Count
from .telemetry import Telemetry

_MAX_LISTED: Final = 500
_FORWARDED: Final = frozenset(
    {
        "forwarded",
        "via",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-real-ip",
        "x-client-ip",
        "x-cluster-client-ip",
        "true-client-ip",
    }
)
_NOT_PUBLIC: Final = (".localhost", ".local", ".internal")
"""Names below these can't be bought, so no page of a stranger goes by one."""

Taken = tuple[str, ...]
"""Accounts to give back to."""


class Gate:
    """``clock`` is monotonic seconds, ``wall`` Unix seconds. ``limit``: requests served at a time."""

    def __init__(
        self,
        telemetry: Telemetry,
        *,
        limit: int,
        anonymous: bool = False,
        nats_keys: bool = False,
        ring: KeyRing | None = None,
        limits: TenantLimits | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.ring = ring or KeyRing()
        self.limits = limits or TenantLimits()
        self.limit = limit
        self._is_full = Shed(f"this router already serves {limit} requests")
        self._is_overloaded = Shed("this router is overloaded")
        self.shedder = Shedder()
        self.accounts = Accounts()
        self.last_used: dict[str, float] = {}
        """By key id, Unix seconds: whether an old key is still in use can be asked before it is withdrawn."""
        self._anonymous = anonymous
        self._nats_keys = nats_keys
        self._clock = clock
        self._wall = wall
        into = telemetry.registry
        refused = Count("router_refused_total", "Requests refused at the door.", ("door", "reason"))
        self._refused = refused.by
        into.register(refused)
        share = Gauge("router_overload_share", "Share of requests refused for overload.", registry=into)
        share.set_function(lambda: self.shedder.share)
        delay = Gauge(
            "router_overload_delay_seconds", "Standing delay before work is looked at.", registry=into
        )
        delay.set_function(lambda: self.shedder.delay_s)
        keys = Gauge("router_api_keys", "API keys that are configured.", registry=into)
        keys.set_function(lambda: len(self.ring))
        accounts = Gauge("router_limit_accounts", "Tenants and keys whose use is counted.", registry=into)
        accounts.set_function(lambda: len(self.accounts))

    def full(self, door: str, in_flight: int) -> Shed | None:
        """RESOURCE_EXHAUSTED where one more would harm those that are served: asked first, costs nothing."""
        if in_flight >= self.limit:
            self._refused[door, "in_flight"] += 1
            return self._is_full
        if self.shedder.refuses(in_flight):
            self._refused[door, "overload"] += 1
            return self._is_overloaded
        return None

    def key_of(
        self, door: str, headers: Mapping[str, str], peer: str | None = None
    ) -> ApiKey | WireError | None:
        """The key's entry, None for a caller who needs none, or UNAUTHENTICATED.

        ``peer`` is the address of an HTTP caller.
        """
        given = key_in(headers)
        ring = self.ring
        if not ring:
            if door == "nats" and self._nats_keys:  # the last key was taken away: that opens no door
                return self._denied(door, "no_key", NO_KEY)
            if door != "http" or self._anonymous or _is_local(peer, headers):
                return None
            return self._denied(door, "not_local", LOOPBACK_ONLY)
        if given is None:
            if self._nats_keys if door == "nats" else not self._anonymous:
                return self._denied(door, "no_key", NO_KEY)
            return None
        found = ring.check(given, self._wall())
        if isinstance(found, WireError):
            self._refused[door, "bad_key"] += 1
        else:
            self.last_used[found.id] = self._wall()
        return found

    def take(self, door: str, tenant: str, key: ApiKey | None) -> Taken | WireError:
        """Counts a request of ``tenant``; RESOURCE_EXHAUSTED above the tenant's limits or the key's."""
        own = None if key is None else key.limits
        if self.limits.endless and own is None:
            return ()
        now = self._clock()
        taken: Taken = ()
        limits = self.limits.of(tenant)
        if not limits.endless:
            given = self.accounts.take(f"tenant:{tenant}", limits, now)
            if isinstance(given, Refusal):
                return self._limited(door, "tenant", f"tenant {tenant}", given)
            taken = (given,)
        if key is not None and own is not None and not own.endless:
            given = self.accounts.take(f"key:{key.id}", own, now)
            if isinstance(given, Refusal):
                for name in taken:
                    self.accounts.undo(name)
                return self._limited(door, "key", f"the API key with the id {key.id}", given)
            taken = (*taken, given)
        return taken

    def give(self, taken: Taken) -> None:
        """A request that was counted has ended."""
        for name in taken:
            self.accounts.give(name)

    def status(self, in_flight: int) -> dict[str, Any]:
        """Limits and their use now, as JSON types; keys by their id."""
        return {
            "limits": {
                "in_flight": in_flight,
                "max_in_flight": self.limit,
                "accounts": len(self.accounts),
                "overload_share": round(self.shedder.share, 3),
                "overload_delay_ms": round(self.shedder.delay_s * 1000.0, 3),
            },
            "keys": [
                {
                    "id": key.id,
                    "tenant": key.tenant,
                    "environment": key.environment,
                    "expires_at": _rfc3339(key.expires_at),
                    "last_used": _rfc3339(self.last_used.get(key.id)),
                }
                for key in self.ring.keys[:_MAX_LISTED]
            ],
            "keys_total": len(self.ring),
        }

    def adopt(self, ring: KeyRing) -> None:
        """Other keys hold from now on."""
        self.ring = ring
        known = {key.id for key in ring.keys}
        self.last_used = {key: at for key, at in self.last_used.items() if key in known}

    def _denied(self, door: str, reason: str, message: str) -> WireError:
        self._refused[door, reason] += 1
        return WireError.of(ErrorCode.UNAUTHENTICATED, message, attempts=0)

    def _limited(self, door: str, whose: str, who: str, refusal: Refusal) -> WireError:
        self._refused[door, f"{whose}_{refusal.what}"] += 1
        return _exhausted(f"{who} may send {refusal.limit}; nothing was executed", refusal.retry_after_ms)


def default_limits(rate: float | None, burst: float | None, concurrency: int | None) -> Limits:
    """Limits from settings; None: no limit. A rate without a burst has one of a second's worth."""
    endless = Limits()
    return Limits(
        endless.rate if rate is None else rate,
        endless.burst if rate is None else burst or max(1.0, rate),
        endless.concurrency if concurrency is None else float(concurrency),
    )


def _rfc3339(unix: float | None) -> str | None:
    if unix is None:
        return None
    return datetime.fromtimestamp(int(unix), UTC).isoformat().replace("+00:00", "Z")


def _exhausted(message: str, retry_after_ms: int) -> WireError:
    return WireError.of(ErrorCode.RESOURCE_EXHAUSTED, message, retry_after_ms=retry_after_ms, attempts=0)


def _is_local(peer: str | None, headers: Mapping[str, str]) -> bool:
    if peer is None or not _is_loopback(peer) or not _FORWARDED.isdisjoint(headers):
        return False
    origin = headers.get("origin")
    return _is_our_name(headers.get("host", "")) and (origin is None or _is_our_page(origin))


@lru_cache(maxsize=1_024)
def _is_our_name(host: str) -> bool:
    """Whether no stranger can have made ``host`` (a name or address, and perhaps a port) lead to here: an
    address, a name without a dot, one that is not public, or this machine's.
    """
    name = _name_in(f"//{host}")
    if name is None:
        return False
    return "." not in name or name.endswith(_NOT_PUBLIC) or name == gethostname().lower() or _is_address(name)


@lru_cache(maxsize=1_024)
def _is_our_page(origin: str) -> bool:
    """Whether a page of this machine sends the request; ``null`` and other schemes are nobody's."""
    name = _name_in(origin) if origin.startswith(("http://", "https://")) else None
    return name is not None and (name == "localhost" or name.endswith(".localhost") or _is_loopback(name))


def _name_in(url: str) -> str | None:
    try:
        return (urlsplit(url).hostname or "").removesuffix(".")
    except ValueError:
        return None


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


@lru_cache(maxsize=1_024)
def _is_loopback(peer: str) -> bool:
    """Whether an address, in text, is this machine's own."""
    try:
        address = ip_address(peer.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)
