"""An identity provider of a test: keys that can be rotated, and tokens with any claims; on a port where a
process of its own has to ask it."""

from __future__ import annotations

import hmac
import json
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

ISSUER, AUDIENCE = "https://id.example", "beamline"


class Provider:
    """Signs with its newest key; ``fetches`` counts how often its documents were asked for."""

    def __init__(self, issuer: str = ISSUER) -> None:
        self.issuer = issuer
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
            "iss": self.issuer, "aud": AUDIENCE, "sub": "ada", "exp": now + 300,
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
        _, body, _ = self.token("admin").split(".")
        public = self._keys[self.kid].public_key()
        pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        head = _base64({"alg": "HS256", "typ": "JWT", "kid": self.kid})  # PyJWT refuses to make such a token
        signature = hmac.digest(pem, f"{head}.{body}".encode(), "sha256")
        return f"{head}.{body}.{urlsafe_b64encode(signature).rstrip(b'=').decode()}"

    async def fetch(self, url: str) -> Mapping[str, Any]:
        """Its documents."""
        self.fetches += 1
        if self.away:
            raise OSError("away")
        return self.document(url)

    def document(self, url: str) -> Mapping[str, Any]:
        """What is at a URL of it: the discovery document, or its keys."""
        if url.endswith("/.well-known/openid-configuration"):
            return {"issuer": self.issuer, "jwks_uri": f"{self.issuer}/keys"}
        keys = [
            {**jwt.algorithms.ECAlgorithm.to_jwk(key.public_key(), as_dict=True), "kid": kid, "alg": "ES256"}
            for kid, key in self._keys.items()
        ]
        return {"keys": [*keys, {"kty": "oct", "kid": "shared", "k": "AAAA"}, {"kty": "odd"}]}


def _base64(value: Mapping[str, Any]) -> str:
    return urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


@contextmanager
def served() -> Iterator[Provider]:
    """A provider whose documents are at a port of 127.0.0.1, for a process that has to fetch them."""
    provider = Provider()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(provider.document(self.path)).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    provider.issuer = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, name="oidc", daemon=True)
    thread.start()
    try:
        yield provider
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
