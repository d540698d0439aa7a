"""Calls of the API by the inspector's own pages, which know a session's cookie instead of a token.

A browser sends a cookie with every request to this host, whoever caused it. SameSite=Strict keeps other sites
out, but not a page on another port of this machine, which counts as the same site. So a cookie counts under
``/api/`` only where the browser itself says that a page of ours asks (Fetch Metadata, where it is sent), and
changes something only with two proofs more: the Origin header names this host, and the page's own word is
in :data:`HEADER`. That word is made from the session's secret, is written into our pages alone, and can't be
read by a page of another origin.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import MutableMapping
from typing import Any, Final
from urllib.parse import urlsplit

HEADER: Final = "x-beamline-page"
_READING: Final = frozenset({"GET", "HEAD"})
_OURS: Final = frozenset({b"same-origin", b"none"})


def page_word(secret: str) -> str:
    """What a page of the session with this secret shows when it asks for a change."""
    return hmac.new(secret.encode(errors="surrogatepass"), b"beamline page", hashlib.sha256).hexdigest()


def is_ours(scope: MutableMapping[str, Any], secret: str) -> bool:
    """Whether a page of ours makes the request of an ASGI scope, for the session with this secret."""
    headers = scope["headers"]
    if any(value not in _OURS for name, value in headers if name == b"sec-fetch-site"):
        return False
    if scope["method"] in _READING:
        return True
    hosts = _values(headers, b"host")
    origins = [urlsplit(origin) for origin in _values(headers, b"origin")]
    if len(hosts) != 1 or len(origins) != 1:
        return False
    (host,), (origin,) = hosts, origins
    if origin.scheme not in {"http", "https"} or origin.netloc.lower() != host.lower():
        return False
    words = _values(headers, HEADER.encode())
    return len(words) == 1 and hmac.compare_digest(words[0].encode(), page_word(secret).encode())


def form_is_ours(scope: MutableMapping[str, Any], secret: str, word: str) -> bool:
    """Whether a page of ours sent a form with this word. A form's Origin is "null" where, as here, pages send
    no Referer, so the word alone proves it.
    """
    sites = _values(scope["headers"], b"sec-fetch-site")
    if any(site.encode() not in _OURS for site in sites):
        return False
    return hmac.compare_digest(word.encode(), page_word(secret).encode())


def _values(headers: list[tuple[bytes, bytes]], wanted: bytes) -> list[str]:
    return [value.decode("latin-1") for name, value in headers if name == wanted]
