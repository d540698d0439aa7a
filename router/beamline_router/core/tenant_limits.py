"""Limits per tenant and per key: requests per second (a token bucket) and requests in flight.

Pure: ``now`` is monotonic seconds. What holds:

- an account never grants more than ``burst + rate x elapsed`` requests, and never more than ``concurrency``
  at a time;
- memory is bounded by ``max_accounts`` whatever names arrive. An account that is idle and full again is equal
  to a new one and is forgotten first. Where none is, further names share one account, so that a flood of
  invented names is limited as one tenant, and takes nothing from the tenants that are there;
- a request that is refused for one reason has taken nothing for another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, inf
from typing import Any, Final

MAX_ACCOUNTS: Final = 65_536
"""Tenants with a history at a time: some 20 MB."""
MAX_RATE: Final = 1_000_000
SHARED: Final = ""
"""Name of the account that names beyond ``MAX_ACCOUNTS`` share; no tenant can be called that."""
CONCURRENCY_RETRY_MS: Final = 1_000
"""When to come back after too many at a time: nobody knows when one ends."""
_WHOLE: Final = 1.0 - 1e-6
"""A token, less what sums of seconds are rounded by: who comes back after just 100 ms finds all of it."""
_FORGET_AT_A_TIME: Final = 2


class LimitsFaultError(ValueError):
    """Limits that make no sense; the message names the field."""


@dataclass(frozen=True, slots=True)
class Limits:
    """``rate`` requests per second, ``burst`` at once, ``concurrency`` at a time; infinite: no limit."""

    rate: float = inf
    burst: float = inf
    concurrency: float = inf

    @property
    def endless(self) -> bool:
        """Whether there is nothing to count."""
        return self.rate == inf and self.concurrency == inf


@dataclass(frozen=True, slots=True)
class Refusal:
    """``what``: rate | concurrency; ``limit`` in words; ``retry_after_ms``: when to come back."""

    what: str
    limit: str
    retry_after_ms: int


@dataclass(slots=True)
class _Account:
    tokens: float
    at: float
    limits: Limits
    in_flight: int = 0


class Accounts:
    """Who has taken what. The order of the dictionary is that of last use, or of having been looked at."""

    __slots__ = ("_accounts", "_max")

    def __init__(self, max_accounts: int = MAX_ACCOUNTS) -> None:
        self._accounts: dict[str, _Account] = {}
        self._max = max_accounts

    def __len__(self) -> int:
        return len(self._accounts)

    def take(self, name: str, limits: Limits, now: float) -> str | Refusal:
        """One request of ``name``: the name to give back to :meth:`give` when it has ended, or a refusal."""
        held = self._accounts.pop(name, None)
        if held is None:
            self._forget(now)
            if len(self._accounts) >= self._max:
                name = SHARED
                held = self._accounts.pop(SHARED, None)
        if held is None:
            held = _Account(limits.burst, now, limits)
        held.limits = limits
        self._accounts[name] = held
        if held.in_flight >= limits.concurrency:
            allowed = f"{limits.concurrency:.0f} requests at a time"
            return Refusal("concurrency", allowed, CONCURRENCY_RETRY_MS)
        if limits.rate != inf:
            held.tokens = _tokens(held, limits, now)
            held.at = max(held.at, now)
            if held.tokens < _WHOLE:
                wait_ms = ceil((1.0 - held.tokens) / limits.rate * 1000.0)
                allowed = f"{limits.rate:g} requests per second with bursts of {limits.burst:g}"
                return Refusal("rate", allowed, max(1, wait_ms))
            held.tokens -= 1.0
        held.in_flight += 1
        return name

    def give(self, name: str) -> None:
        """A request that :meth:`take` let through has ended."""
        held = self._accounts.get(name)
        if held is not None and held.in_flight > 0:
            held.in_flight -= 1

    def undo(self, name: str) -> None:
        """As if :meth:`take` had never been called: another limit refused the request."""
        held = self._accounts.get(name)
        if held is not None and held.in_flight > 0:
            held.in_flight -= 1
            held.tokens += 1.0

    def in_flight(self, name: str) -> int:
        """Requests of ``name`` that run now."""
        held = self._accounts.get(name)
        return 0 if held is None else held.in_flight

    def _forget(self, now: float) -> None:
        """Drops the longest unused accounts that are like new; a few at a time, so the cost stays flat. One
        that is not goes to the end, so that it keeps no other one here.
        """
        for _ in range(_FORGET_AT_A_TIME):
            oldest = next(iter(self._accounts), None)
            if oldest is None:
                return
            held = self._accounts[oldest]
            full = held.limits.rate == inf or _tokens(held, held.limits, now) >= held.limits.burst
            del self._accounts[oldest]
            if held.in_flight or not full:
                self._accounts[oldest] = held


class TenantLimits:
    """The limits in force: a default, and tenants with their own. Immutable, replaced as a whole."""

    __slots__ = ("_default", "_own", "endless")

    def __init__(self, default: Limits | None = None, tenants: Mapping[str, Limits] | None = None) -> None:
        self._default = default or Limits()
        self._own = dict(tenants or {})
        self.endless = self._default.endless and all(own.endless for own in self._own.values())

    def of(self, tenant: str) -> Limits:
        """The limits of one tenant."""
        return self._own.get(tenant, self._default)


def read_limits(value: object, where: str) -> Limits:
    """``{requestsPerSecond, burst, concurrency}``, all optional. Raises :class:`LimitsFaultError`."""
    if not isinstance(value, Mapping):
        raise LimitsFaultError(f"{where} must hold requestsPerSecond, burst or concurrency")
    unknown = value.keys() - {"requestsPerSecond", "burst", "concurrency"}
    if unknown:
        name = str(min(map(str, unknown)))[:40]
        raise LimitsFaultError(
            f"{where}: unknown field {name!r}; known are burst, concurrency, requestsPerSecond"
        )
    rate = _positive(value, "requestsPerSecond", where, least=0.001)
    burst = _positive(value, "burst", where, least=1.0)
    if rate == inf and burst != inf:
        raise LimitsFaultError(f"{where}.burst needs requestsPerSecond beside it")
    if rate != inf and burst == inf:
        burst = max(1.0, float(ceil(rate)))
    concurrency = _positive(value, "concurrency", where)
    return Limits(rate, burst, concurrency if concurrency == inf else float(int(concurrency)))


def read_tenant_limits(document: object, where: str, default: Limits) -> TenantLimits:
    """``{default: {...}, tenants: {NAME: {...}}}``; ``default`` holds where the document states none.

    Raises :class:`LimitsFaultError`; ``where`` is the file's name, for the message.
    """
    if document is None:
        return TenantLimits(default)
    if not isinstance(document, Mapping):
        raise LimitsFaultError(f"{where} must hold `default:` and `tenants:`")
    unknown = document.keys() - {"default", "tenants"}
    if unknown:
        name = str(min(map(str, unknown)))[:40]
        raise LimitsFaultError(f"{where}: unknown field {name!r}; known are default, tenants")
    tenants: Any = document.get("tenants") or {}
    if not isinstance(tenants, Mapping):
        raise LimitsFaultError(f"{where}: tenants must be a map of tenants to their limits")
    stated = document.get("default")
    return TenantLimits(
        default if stated is None else read_limits(stated, f"{where}: default"),
        {str(name): read_limits(own, f"{where}: tenants.{name}") for name, own in tenants.items()},
    )


def _tokens(held: _Account, limits: Limits, now: float) -> float:
    return min(limits.burst, held.tokens + max(0.0, now - held.at) * limits.rate)


def _positive(value: Mapping[Any, Any], name: str, where: str, *, least: float = 1.0) -> float:
    found = value.get(name)
    if found is None:
        return inf
    if isinstance(found, bool) or not isinstance(found, int | float) or not least <= found <= MAX_RATE:
        raise LimitsFaultError(f"{where}.{name} must be a number from {least:g} to {MAX_RATE}")
    return float(found)
