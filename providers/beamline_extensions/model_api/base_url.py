"""Which base URLs may be asked: a strict reading, and the operator's allow-list.

A base URL may come from a custom resource or a policy step, so whoever can write one must not be able to send
a key, or a request from inside the network, wherever they like. Two gates stand in the way. This one reads
the text: it takes only what every parser reads in the same way (no user info, no percent signs, no dots at
the end, no host made of numbers unless it is a plain IP address), and then asks whether scheme, host, port
and the path's beginning are on the list. The second gate looks at the addresses when a connection is made
(:mod:`.addresses`).

The list is the API's own address, the default that the operator set in the environment, and
``BEAMLINE_ALLOWED_BASE_URLS``: base URLs with commas between them.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass

_URL = re.compile(r"(https?)://(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+)(?::([0-9]{1,5}))?(/[A-Za-z0-9._~/-]*)?")
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_NUMERIC = re.compile(r"(?:0x[0-9a-f]*|[0-9]+)")
_PORTS = {"http": 80, "https": 443}
MAX_URL_CHARACTERS = 512


class BaseUrlError(ValueError):
    """The base URL can't be used; the text says why and never repeats user info."""


@dataclass(frozen=True, slots=True)
class BaseUrl:
    """A base URL, normalised: lower-case host, explicit port, path without a slash at its end."""

    scheme: str
    host: str
    port: int
    path: str

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == _PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}{self.path}"

    @property
    def address(self) -> str | None:
        """The IP address where the host is one, else None."""
        try:
            return str(ipaddress.ip_address(self.host))
        except ValueError:
            return None

    def covers(self, other: BaseUrl) -> bool:
        """Whether ``other`` is this place or one below it."""
        if (self.scheme, self.host, self.port) != (other.scheme, other.host, other.port):
            return False
        return other.path == self.path or other.path.startswith(self.path + "/")


def parse(text: str) -> BaseUrl:
    """Reads a base URL. Raises :class:`BaseUrlError`."""
    if len(text) > MAX_URL_CHARACTERS:
        raise BaseUrlError(f"a base URL has at most {MAX_URL_CHARACTERS} characters")
    if "@" in text:
        raise BaseUrlError("a base URL must not hold a user name or password")
    found = _URL.fullmatch(text)
    if found is None:
        raise BaseUrlError(
            "a base URL is http:// or https://, an ASCII host name or IP address, an optional port and a path"
            " of letters, digits and ._~-"
        )
    scheme, host, port, path = found.groups()
    path = (path or "").rstrip("/")
    if "//" in path or any(part in {".", ".."} for part in path.split("/")):
        raise BaseUrlError("the path of a base URL must not hold empty or dotted parts")
    number = _PORTS[scheme] if port is None else int(port)
    if not 0 < number < 65_536:
        raise BaseUrlError("the port of a base URL is a number from 1 to 65535")
    return BaseUrl(scheme, _host(host), number, path)


def _host(text: str) -> str:
    if text.startswith("["):
        try:
            return str(ipaddress.IPv6Address(text[1:-1]))
        except ValueError:
            raise BaseUrlError("the host in brackets is not an IPv6 address") from None
    host = text.lower()
    if host.endswith("."):
        raise BaseUrlError("the host must not end with a dot")
    labels = host.split(".")
    if _NUMERIC.fullmatch(labels[-1]):
        try:  # 0x7f.1, 2130706433 and 0177.0.0.1 are IP addresses to some resolvers and names to others
            return str(ipaddress.IPv4Address(host))
        except ValueError:
            raise BaseUrlError("a host of numbers must be an IPv4 address of four decimal parts") from None
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise BaseUrlError("the host is not a host name; write international names in their xn-- form")
    return host


def parse_list(text: str) -> tuple[BaseUrl, ...]:
    """Base URLs with commas between them. Raises :class:`BaseUrlError`."""
    return tuple(parse(entry.strip()) for entry in text.split(",") if entry.strip())


def allowed(wanted: BaseUrl, entries: Iterable[BaseUrl]) -> bool:
    """Whether one of ``entries`` covers ``wanted``."""
    return any(entry.covers(wanted) for entry in entries)
