"""The key of a request, by which percentages and sticky choices are hashed: the same key, the same fate.

Each decision hashes under a salt of its own, so that a key's fate in one says nothing about the next: who is
among a policy's first five percent is not also the first to meet its canary.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

from .request import Request

_HEADER: Final = len("header:")
_LONGEST_SALT: Final = blake2b.MAX_KEY_SIZE


def key_of(sticky_key: str | None, request: Request) -> str:
    """The tenant or the header that ``sticky_key`` names (without it the tenant); None: the request's id."""
    if sticky_key is None:
        return request.request_id
    if sticky_key == "tenant":
        return request.tenant_id
    return request.headers.get(sticky_key[_HEADER:].lower(), request.tenant_id)


def within(percent: int, salt: str, key: str) -> bool:
    """Whether ``key`` falls into the first ``percent`` of a hundred; the same always for the same salt and
    key.

    Who is in at one percentage is in at every higher one.
    """
    return hashed(salt, key) % 10_000 < percent * 100


def hashed(salt: str, key: str) -> int:
    """64 bits of ``key`` under ``salt``, every byte of which counts."""
    salted = salt.encode()
    if len(salted) > _LONGEST_SALT:
        salted = blake2b(salted).digest()
    return int.from_bytes(blake2b(key.encode(), digest_size=8, key=salted).digest())
