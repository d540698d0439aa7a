"""Who asks. A verifier turns a token into an identity, or knows nothing about it; without an identity nothing
is shown.

There are three: a token for people on the same machine (here), tokens of an identity provider
(:mod:`.oidc`) and tokens of a cluster (:mod:`.cluster_identity`). The latter ask other machines, which is
why ``verify`` is a coroutine. Verifiers are asked in order and the first identity counts, so each must be
sure of its own tokens and silent about all others.

"The same machine" is more than the peer's address. A proxy on this machine would lend its address to the
whole world, and a web page could rebind its own name to 127.0.0.1: so forwarded requests, and requests for
a host name that is not this machine's, do not count as local.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv6Address, ip_address
from typing import Any, Final, Protocol

SESSION_S: Final = 12 * 3600.0
"""How long a browser stays logged in: a working day, and the next day starts with a new login."""
MAX_SESSIONS: Final = 256
_FORWARDING: Final = frozenset(
    {b"forwarded", b"via", b"x-real-ip", b"x-client-ip", b"x-cluster-client-ip", b"true-client-ip"}
    | {b"cf-connecting-ip", b"x-original-forwarded-for", b"x-original-host", b"x-envoy-external-address"}
)


class Role(StrEnum):
    """What an identity may do; each role may also do what the ones before it may."""

    VIEWER = "viewer"
    """See everything."""
    OPERATOR = "operator"
    """Act on what runs: enable, disable, isolate, promote."""
    ADMIN = "admin"
    """Create, change and delete objects."""

    def covers(self, wanted: Role) -> bool:
        """Whether this role may do what ``wanted`` may."""
        order = tuple(Role)
        return order.index(self) >= order.index(wanted)


@dataclass(frozen=True, slots=True)
class Client:
    """Where a request comes from. ``authority`` is its Host header without the port, lower case."""

    address: str
    authority: str
    forwarded: bool = False

    @property
    def local(self) -> bool:
        """Whether a process on this machine asks, on its own account, for this machine."""
        here = self.authority == "localhost" or _is_loopback(self.authority)
        return here and not self.forwarded and _is_loopback(self.address)


@dataclass(frozen=True, slots=True)
class Identity:
    """Somebody known. ``local_only``: on this machine alone."""

    subject: str
    role: Role
    local_only: bool = False
    tenants: frozenset[str] | None = None
    """The tenants that it is bound to; None is all of them."""


class VerifierError(Exception):
    """A verifier can't say now whether a token is good; the message is for people."""


class Verifier(Protocol):
    """Knows one kind of token."""

    async def verify(self, token: str, client: Client) -> Identity | None:
        """The identity that ``token`` proves when ``client`` shows it; None where it proves nothing. Raises
        :class:`VerifierError`.
        """
        ...


class LoopbackToken:
    """One token, printed at start, that works on this machine only. It is compared in constant time."""

    def __init__(self, token: str, role: Role = Role.ADMIN) -> None:
        self._digest = _digest(token)
        self._identity = Identity("local", role, local_only=True)

    async def verify(self, token: str, client: Client) -> Identity | None:
        """See :class:`Verifier`."""
        right = hmac.compare_digest(_digest(token), self._digest)
        return self._identity if right and client.local else None


class Authenticator:
    """Asks verifiers in order."""

    def __init__(self, verifiers: Sequence[Verifier]) -> None:
        self._verifiers = tuple(verifiers)

    async def verify(self, token: str, client: Client) -> Identity | None:
        """See :class:`Verifier`."""
        for verifier in self._verifiers:
            if (identity := await verifier.verify(token, client)) is not None:
                return identity
        return None


class Sessions:
    """Browsers that logged in: a session counts as long as ``tokens`` knows the token that opened it, so a
    right that was taken away ends with it. In memory: a restart logs everybody out. ``clock`` is monotonic
    seconds.
    """

    def __init__(self, clock: Callable[[], float], tokens: Verifier) -> None:
        self._clock = clock
        self._tokens = tokens
        self._open: OrderedDict[bytes, tuple[str, float]] = OrderedDict()

    def open(self, token: str) -> str:
        """A new session's secret. The oldest session makes room where there are :data:`MAX_SESSIONS`."""
        secret = secrets.token_urlsafe(32)
        self._open[_digest(secret)] = (token, self._clock() + SESSION_S)
        while len(self._open) > MAX_SESSIONS:
            self._open.popitem(last=False)
        return secret

    def close(self, secret: str) -> None:
        """Ends a session; an unknown one is fine."""
        self._open.pop(_digest(secret), None)

    async def verify(self, token: str, client: Client) -> Identity | None:
        """See :class:`Verifier`; the token is a session's secret."""
        own, ends = self._open.get(_digest(token), ("", 0.0))
        if not own or self._clock() >= ends:
            return None
        return await self._tokens.verify(own, client)


def client_of(scope: MutableMapping[str, Any]) -> Client:
    """The client of an ASGI scope. An unknown peer, and more than one Host header, are never local."""
    peer = scope.get("client")
    hosts = [value for name, value in scope["headers"] if name == b"host"]
    host = hosts[0].decode("latin-1").lower() if len(hosts) == 1 else ""
    authority = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return Client(
        address=str(peer[0]) if peer else "",
        authority=authority,
        forwarded=any(name in _FORWARDING or name.startswith(b"x-forwarded") for name, _ in scope["headers"]),
    )


def bearer_of(scope: MutableMapping[str, Any]) -> str | None:
    """The bearer token of an ASGI scope; None without one, or with more than one Authorization header."""
    values = [value for name, value in scope["headers"] if name == b"authorization"]
    if len(values) != 1:
        return None
    scheme, _, token = values[0].decode("latin-1").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def _is_loopback(text: str) -> bool:
    try:
        address = ip_address(text)
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped.is_loopback
    return address.is_loopback


def _digest(token: str) -> bytes:
    """Of equal length whatever the token, so that a comparison tells nothing about it."""
    return hashlib.sha256(token.encode(errors="surrogatepass")).digest()
