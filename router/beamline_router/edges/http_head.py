"""What a request's head must be beyond its grammar, which is the parser's business, and what is read from it.

Where two readers of the same bytes disagree about where a request ends or whose it is, a request can be
smuggled past the one in front. So nothing here is lenient: one Host (RFC 9112, 3.2), no transfer coding but
``chunked`` (6.1), no version but the two that are spoken here.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final
from urllib.parse import unquote

import httptools

from .http_exchange import Header

Fault = tuple[str, str]
"""The status line's end, and a sentence."""

PATHS: Final = {path.encode(): path for path in ("/v1/chat/completions", "/v1/route")}
"""The paths of requests to models, as nearly everybody writes them."""
_VERSIONS: Final = frozenset({"1.1", "1.0"})
_HOST: Final = re.compile(rb"(?:\[[0-9A-Za-z.:%_~-]+\]|[0-9A-Za-z._~!$&'()*+,;=%-]*)(?::[0-9]*)?")
_OFFERS: Final = frozenset({b"upgrade", b"http2-settings", b"connection"})

_VERSION_FAULT: Final = "505 HTTP Version Not Supported", "HTTP/1.1 is spoken here, and HTTP/1.0"
_HOST_FAULT: Final = "400 Bad Request", "one Host header is needed: a name or an address, and perhaps a port"
_CODING_FAULT: Final = "501 Not Implemented", "the only transfer coding that is known here is chunked"


class RefusedError(Exception):
    """Ends the parsing of a head."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault[1])
        self.fault = fault


def check(version: str, headers: list[Header]) -> None:
    """Raises :class:`RefusedError` for a head that must not be served."""
    if version not in _VERSIONS:
        raise RefusedError(_VERSION_FAULT)
    hosts = 0
    for name, value in headers:
        if name == b"host":
            hosts += 1
            if not _is_host(value):
                raise RefusedError(_HOST_FAULT)
        elif name == b"transfer-encoding" and value.lower() != b"chunked":
            raise RefusedError(_CODING_FAULT)
    if hosts != 1 and (hosts or version != "1.0"):
        raise RefusedError(_HOST_FAULT)


@lru_cache(maxsize=1_024)
def _is_host(value: bytes) -> bool:
    return _HOST.fullmatch(value) is not None


def size(url: bytes, headers: list[Header]) -> int:
    """Bytes of a head, or nearly so."""
    return len(url) + sum(len(name) + len(value) + 4 for name, value in headers)


def path_of(url: bytes) -> str:
    """The decoded path of a request's target. Raises where the target is no address, or not ASCII."""
    known = PATHS.get(url)
    if known is not None:
        return known
    path: str = (httptools.parse_url(url).path or b"/").decode("ascii")
    return unquote(path) if "%" in path else path


def without_offer(method: bytes, url: bytes, version: str, headers: list[Header]) -> bytes:
    """The same head without the other protocol that it offers to speak."""
    closes = any(name == b"connection" and b"close" in value.lower() for name, value in headers)
    kept = [(name, value) for name, value in headers if name not in _OFFERS]
    if closes:
        kept.append((b"connection", b"close"))
    lines = b"".join(b"%b: %b\r\n" % header for header in kept)
    return b"%b %b HTTP/%b\r\n%b\r\n" % (method, url, version.encode(), lines)
