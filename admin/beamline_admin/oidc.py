"""Tokens of an identity provider: OIDC JSON Web Tokens, checked here, with keys that the provider may rotate.

Only the algorithms of :data:`ALGORITHMS` count, all of them asymmetric, so ``none`` and a signature made
with the public key as a shared secret are no signatures. Issuer, audience and expiry are required. Roles
and tenants come from claims; without a known role a token proves nothing here, and without the claim of
tenants it is bound to none.

Keys are fetched when first needed and kept for :data:`KEYS_S`. A token with an unknown key id asks for
them again, at most every :data:`REFETCH_S`, so a stranger's tokens can't make us call the provider at
will. While the provider is away the last keys count.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import httpx2
import jwt
import structlog

from .identity import Client, Identity, Role, VerifierError

log = structlog.get_logger()

ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA")
KEYS_S: Final = 300.0
REFETCH_S: Final = 10.0
LEEWAY_S: Final = 10.0
"""How far the provider's clock may be ahead of this machine's, so that a token which was just made counts.
One that has ended never does.
"""
EVERY_TENANT: Final = "*"
MAX_TOKEN: Final = 16 * 1024
_FETCH_S: Final = 5.0
_MAX_DOCUMENT: Final = 512 * 1024

Fetch = Callable[[str], Awaitable[Mapping[str, Any]]]


@dataclass(frozen=True, slots=True)
class OidcSettings:
    """Whose tokens count. ``jwks_url`` empty: the issuer's discovery document says it."""

    issuer: str
    audience: str
    jwks_url: str = ""
    subject_claim: str = "sub"
    role_claim: str = "beamline_role"
    tenants_claim: str = "beamline_tenants"


class OidcVerifier:
    """:class:`.identity.Verifier` of one issuer. ``clock`` is monotonic seconds, ``wall`` Unix seconds."""

    def __init__(
        self,
        settings: OidcSettings,
        *,
        clock: Callable[[], float],
        wall: Callable[[], float] = time.time,
        fetch: Fetch | None = None,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._wall = wall
        self._fetch = fetch or fetch_json
        self._lock = asyncio.Lock()
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched: float | None = None
        self._tried: float | None = None

    async def verify(self, token: str, client: Client) -> Identity | None:
        """See :class:`.identity.Verifier`."""
        try:
            if len(token) > MAX_TOKEN or token.count(".") != 2:
                return None
            header = jwt.get_unverified_header(token)
            claimed = jwt.decode(token, options={"verify_signature": False})
        except jwt.PyJWTError:
            return None
        if claimed.get("iss") != self._settings.issuer or header.get("alg") not in ALGORITHMS:
            return None
        key = await self._key(str(header.get("kid", "")))
        if key is None:
            return None
        try:
            claims = jwt.decode(
                token,
                key.key,
                algorithms=[str(header["alg"])] if key.algorithm_name == header["alg"] else [],
                audience=self._settings.audience,
                issuer=self._settings.issuer,
                leeway=LEEWAY_S,
                options={"require": ["exp", "iss", "aud"]},
            )
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            log.info("admin.token_refused", why=type(error).__name__)
            return None
        return None if float(claims["exp"]) <= self._wall() else self._identity(claims)

    def _identity(self, claims: Mapping[str, Any]) -> Identity | None:
        subject = str(claims.get(self._settings.subject_claim) or "")[:253]
        roles = [role for role in Role if role.value in set(_texts(claims.get(self._settings.role_claim)))]
        if not roles or not subject or not subject.isprintable():  # it is shown, logged and signed with
            return None
        tenants = frozenset(_texts(claims.get(self._settings.tenants_claim)))
        return Identity(subject, roles[-1], tenants=None if EVERY_TENANT in tenants else tenants)

    async def _key(self, kid: str) -> jwt.PyJWK | None:
        async with self._lock:
            now = self._clock()
            stale = self._fetched is None or now - self._fetched >= KEYS_S
            may_ask = self._tried is None or now - self._tried >= REFETCH_S
            if (stale or self._pick(kid) is None) and may_ask:
                self._tried = now
                await self._refresh(now)
            if self._fetched is None:
                raise VerifierError("the identity provider's keys can't be fetched")
            return self._pick(kid)

    def _pick(self, kid: str) -> jwt.PyJWK | None:
        if not kid and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(kid)

    async def _refresh(self, now: float) -> None:
        try:
            url = self._settings.jwks_url
            if not url:
                root = self._settings.issuer.rstrip("/")
                found = await self._fetch(f"{root}/.well-known/openid-configuration")
                url = _jwks_url(found, self._settings.issuer)
            self._keys = _keys_of(await self._fetch(url))
            self._fetched = now
        except (httpx2.HTTPError, OSError, ValueError, KeyError, TypeError, jwt.PyJWTError) as error:
            log.warning("admin.keys_not_fetched", issuer=self._settings.issuer, error=str(error)[:200])


async def fetch_json(url: str) -> Mapping[str, Any]:
    """A JSON object by HTTP, without redirects, bounded in time and size."""
    async with httpx2.AsyncClient(timeout=_FETCH_S, follow_redirects=False) as client:
        answer = await client.get(url)
        answer.raise_for_status()
        if len(answer.content) > _MAX_DOCUMENT:
            raise ValueError("the document is too large")
        found = answer.json()
    if not isinstance(found, dict):
        raise TypeError("the document is no JSON object")
    return found


def _jwks_url(discovered: Mapping[str, Any], issuer: str) -> str:
    if discovered.get("issuer") != issuer:
        raise ValueError("the discovery document names another issuer")
    return str(discovered["jwks_uri"])


def _keys_of(document: Mapping[str, Any]) -> dict[str, jwt.PyJWK]:
    """The public signing keys that we can use; others are skipped."""
    keys: dict[str, jwt.PyJWK] = {}
    for entry in document["keys"]:
        if entry.get("use", "sig") != "sig" or entry.get("kty") == "oct":
            continue
        try:
            key = jwt.PyJWK(entry)
        except jwt.PyJWTError:
            continue
        if key.algorithm_name in ALGORITHMS:
            keys[str(entry.get("kid", ""))] = key
    return keys


def _texts(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        return value.replace(",", " ").split()
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []
