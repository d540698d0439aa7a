"""API keys: what one looks like, what is stored of it, and whether a given one is good.

A key is ``blm_ID_SECRET``. The id is public and finds the entry; the secret is 256 random bits. Stored is the
SHA-256 of the whole key: a key of that entropy can't be guessed, so a slow hash or a salt would only slow
down every request (docs/decisions/0007-api-keys-are-hashed-once.md). Digests are compared in constant time,
also for an id that does not exist, so neither time nor words tell whether an id does.

An entry decides the tenant, and where it states one the environment, of whoever holds the key. Several
entries may name one tenant, which is how keys are rotated. Nothing here ever puts a key into a message.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from beamline_contract.errors import ErrorCode, WireError
from beamline_contract.names import TENANT_PATTERN

from .tenant_limits import Limits, LimitsFaultError, read_limits

PREFIX: Final = "blm"
ID_BYTES: Final = 6
SECRET_BYTES: Final = 32
HASH_PREFIX: Final = "sha256:"
MAX_KEYS: Final = 100_000
"""Entries in all files together: about 50 MB, and more than anybody rotates by hand."""
_MAX_KEY_LENGTH: Final = 256
_FIELDS: Final = frozenset({"id", "hash", "tenant", "environment", "expires", "description", "limits"})
_ID: Final = re.compile(r"[a-z0-9]{4,32}")
_HASH: Final = re.compile(r"sha256:[0-9a-f]{64}")
_TENANT: Final = re.compile(TENANT_PATTERN)
_ENVIRONMENT: Final = re.compile(r"[A-Za-z0-9._-]{1,63}")
_NOBODY: Final = hashlib.sha256(b"").digest()

NO_KEY: Final = "an API key is required: send it as `Authorization: Bearer KEY` or as `x-api-key: KEY`"
KEY_HEADERS: Final = ("authorization", "x-api-key")
"""Headers that may hold a key."""
BAD_KEY: Final = "the API key is not valid: it is unknown, mistyped or has been withdrawn"
LOOPBACK_ONLY: Final = (
    "no API key is configured, so this router serves callers on its own machine only: make one with "
    "`beamline keys new` and name its file in BEAMLINE_API_KEYS"
)


class KeyFaultError(ValueError):
    """An entry that can't be used; the message names the entry and the field, never a hash or a key."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One entry. ``environment`` None: any. ``expires_at`` is Unix seconds, None: never."""

    id: str
    digest: bytes
    tenant: str
    environment: str | None = None
    expires_at: float | None = None
    limits: Limits | None = None


class KeyRing:
    """All keys that are good now; immutable, replaced as a whole."""

    __slots__ = ("_by_id",)

    def __init__(self, keys: Iterable[ApiKey] = ()) -> None:
        self._by_id = {key.id: key for key in keys}

    def __len__(self) -> int:
        return len(self._by_id)

    @property
    def keys(self) -> tuple[ApiKey, ...]:
        """The entries, in the order of their files."""
        return tuple(self._by_id.values())

    def check(self, given: str, unix: float) -> ApiKey | WireError:
        """The entry of a good key, else UNAUTHENTICATED. ``unix`` is the wall clock in seconds."""
        parts = given.split("_", 2) if len(given) <= _MAX_KEY_LENGTH else []
        found = self._by_id.get(parts[1]) if len(parts) == 3 else None
        digest = hashlib.sha256(given.encode("utf-8", "replace")).digest()
        same = hmac.compare_digest(digest, _NOBODY if found is None else found.digest)
        if found is None or not same:
            return WireError.of(ErrorCode.UNAUTHENTICATED, BAD_KEY, attempts=0)
        if found.expires_at is not None and unix >= found.expires_at:
            when = datetime.fromtimestamp(found.expires_at, UTC).isoformat().replace("+00:00", "Z")
            return WireError.of(
                ErrorCode.UNAUTHENTICATED,
                f"the API key with the id {found.id} expired at {when}: ask for a new one",
                attempts=0,
            )
        return found


def key_in(headers: Mapping[str, str]) -> str | None:
    """The key that a request carries, or None; ``headers`` have lower-case names. Authorization wins.

    Another scheme of Authorization is a wrong key and not an absent one: its sender meant to say who they
    are.
    """
    stated = headers.get("authorization")
    if stated:
        scheme, _, value = stated.partition(" ")
        return value.strip() if scheme.lower() == "bearer" else stated
    return headers.get("x-api-key") or None


def without_keys(headers: dict[str, str]) -> dict[str, str]:
    """Takes the headers that may hold a key out, so that nothing behind the door can see or match them."""
    for name in KEY_HEADERS:
        headers.pop(name, None)
    return headers


def new_key(
    tenant: str,
    environment: str | None,
    expires: str | None,
    random: Callable[[int], bytes],
) -> tuple[str, dict[str, Any]]:
    """A fresh key and its entry. ``random`` must be the system's: :func:`secrets.token_bytes`.

    Raises :class:`KeyFaultError` for a tenant, an environment or an expiry that no entry may have.
    """
    key_id, secret = random(ID_BYTES).hex(), random(SECRET_BYTES).hex()
    text = f"{PREFIX}_{key_id}_{secret}"
    entry: dict[str, Any] = {
        "id": key_id,
        "hash": HASH_PREFIX + hashlib.sha256(text.encode()).hexdigest(),
        "tenant": tenant,
    }
    if environment is not None:
        entry["environment"] = environment
    if expires is not None:
        entry["expires"] = expires
    read_key(entry, "the new key")
    return text, entry


def read_keys(document: object, where: str) -> list[ApiKey]:
    """The entries of one file: ``{keys: [...]}``, a list, or one entry. An empty document holds none.

    Raises :class:`KeyFaultError`; ``where`` is the file's name, for the message.
    """
    if document is None:
        return []
    if isinstance(document, Mapping) and "keys" in document:
        unknown = document.keys() - {"keys"}
        if unknown:
            raise KeyFaultError(f"{where}: unknown field {min(map(str, unknown))!r} beside keys")
        document = document["keys"] or []
    entries = [document] if isinstance(document, Mapping) else document
    if not isinstance(entries, list):
        raise KeyFaultError(f"{where}: must hold `keys:` with a list of entries")
    return [read_key(entry, f"{where}: keys[{number}]") for number, entry in enumerate(entries)]


def read_key(entry: object, where: str) -> ApiKey:
    """One entry. Raises :class:`KeyFaultError`, which starts with ``where``."""
    if not isinstance(entry, Mapping):
        raise KeyFaultError(f"{where} must be an entry with id, hash and tenant")
    unknown = entry.keys() - _FIELDS
    if unknown:
        known = ", ".join(sorted(_FIELDS))
        raise KeyFaultError(f"{where}: unknown field {str(min(map(str, unknown)))[:40]!r}; known are {known}")
    for name, pattern, rule in (
        ("id", _ID, "4 to 32 lower-case letters and digits"),
        ("hash", _HASH, "sha256: and 64 hexadecimal digits, as `beamline keys new` prints it"),
        ("tenant", _TENANT, "1 to 128 of letters, digits and ._:-"),
        ("environment", _ENVIRONMENT, "1 to 63 of letters, digits and ._-"),
    ):
        value = entry.get(name)
        if value is None and name == "environment":
            continue
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise KeyFaultError(f"{where}.{name} must be {rule}")
    try:
        limits = None if entry.get("limits") is None else read_limits(entry["limits"], f"{where}.limits")
    except LimitsFaultError as error:
        raise KeyFaultError(str(error)) from error
    return ApiKey(
        id=entry["id"],
        digest=bytes.fromhex(entry["hash"].removeprefix(HASH_PREFIX)),
        tenant=entry["tenant"],
        environment=entry.get("environment"),
        expires_at=_instant(entry.get("expires"), where),
        limits=limits,
    )


def ring_of(keys: Iterable[ApiKey]) -> KeyRing:
    """A ring of these keys. Raises :class:`KeyFaultError` for an id that stands twice, or too many."""
    listed = list(keys)
    seen: set[str] = set()
    for key in listed:
        if key.id in seen:
            raise KeyFaultError(f"the key id {key.id} stands twice: each entry needs an id of its own")
        seen.add(key.id)
    if len(listed) > MAX_KEYS:
        raise KeyFaultError(f"there are {len(listed)} keys, at most {MAX_KEYS} can be held")
    return KeyRing(listed)


def _instant(value: object, where: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, datetime):  # YAML reads a bare timestamp by itself
        return (value if value.tzinfo is not None else value.replace(tzinfo=UTC)).timestamp()
    try:
        found = datetime.fromisoformat(str(value))
    except ValueError:
        raise KeyFaultError(f"{where}.expires must be a time such as 2027-01-31T00:00:00Z") from None
    return (found if found.tzinfo is not None else found.replace(tzinfo=UTC)).timestamp()
