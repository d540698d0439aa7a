"""An identity provider of a test: keys that can be rotated, and tokens with any claims."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

ISSUER, AUDIENCE = "https://id.example", "beamline"


class Provider:
    """Signs with its newest key; ``fetches`` counts how often its documents were asked for."""

    def __init__(self) -> None:
        self.fetches = 0
        self.away = False
        self._keys: dict[str, Any] = {}
        self.rotate()

    def rotate(self) -> None:
        """A new key; the old ones are forgotten."""
        self.kid = f"key-{time.monotonic_ns()}"
        self._keys = {self.kid: ec.generate_private_key(ec.SECP256R1())}

    def token(
        self, role: str | None = "viewer", tenants: Any = "*", *, headers: Any = None, **claims: Any
    ) -> str:
        """A token; a claim that is None is left out."""
        now = int(time.time())
        given: dict[str, Any] = {
            "iss": ISSUER, "aud": AUDIENCE, "sub": "ada", "exp": now + 300,
            "beamline_role": role, "beamline_tenants": tenants,
        } | claims  # fmt: skip
        stated = {name: value for name, value in given.items() if value is not None}
        return jwt.encode(
            stated, self._keys[self.kid], algorithm="ES256", headers={"kid": self.kid, **(headers or {})}
        )

    def unsigned(self) -> str:
        """A token with ``alg: none``."""
        claims = jwt.decode(self.token("admin"), options={"verify_signature": False})
        return jwt.encode(claims, None, algorithm="none", headers={"kid": self.kid})

    def confused(self) -> str:
        """A token that is signed with the public key as if it were a shared secret."""
        claims = jwt.decode(self.token("admin"), options={"verify_signature": False})
        return jwt.encode(claims, b"x" * 32, algorithm="HS256", headers={"kid": self.kid})

    async def fetch(self, url: str) -> Mapping[str, Any]:
        """Its documents."""
        self.fetches += 1
        if self.away:
            raise OSError("away")
        if url.endswith("/.well-known/openid-configuration"):
            return {"issuer": ISSUER, "jwks_uri": f"{ISSUER}/keys"}
        keys = [
            {**jwt.algorithms.ECAlgorithm.to_jwk(key.public_key(), as_dict=True), "kid": kid, "alg": "ES256"}
            for kid, key in self._keys.items()
        ]
        return {"keys": [*keys, {"kty": "oct", "kid": "shared", "k": "AAAA"}, {"kty": "odd"}]}
