"""How a process proves itself to NATS, and NATS to it: files named by environment variables.

They are the same for every component and every extension, as ``NATS_URL`` is, so they are read in one place.
``SSL_CERT_FILE`` would name a CA too, but for everything that a process talks to, model APIs included.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

VARIABLES: Final[Mapping[str, str]] = {
    "ca_file": "NATS_CA_FILE",
    "certificate_file": "NATS_CERTIFICATE_FILE",
    "key_file": "NATS_KEY_FILE",
    "nkey_file": "NATS_NKEY_FILE",
    "tls_first": "NATS_TLS_FIRST",
}
"""Field of :class:`LinkSecurity` to the variable that it is read from."""
_TRUE: Final = frozenset({"1", "true", "yes", "on"})


class SecurityError(ValueError):
    """A file is missing or can't be used; the message is one sentence that names its variable."""


@dataclass(frozen=True, slots=True)
class LinkSecurity:
    """Paths, none of which is required; an empty one counts as none."""

    ca_file: str | None = None
    """CA of the server's certificate, PEM; default: the system's."""
    certificate_file: str | None = None
    key_file: str | None = None
    """Certificate that this process shows (mutual TLS), PEM: both or none."""
    nkey_file: str | None = None
    """Seed of an nkey (``SU...``), in a file of its own."""
    tls_first: bool = False
    """TLS before the server has said a word, so that nobody on the way can talk this process out of it. The
    server needs ``handshake_first: true``.
    """

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> LinkSecurity:
        """Reads :data:`VARIABLES`."""
        given = os.environ if environment is None else environment
        found = {field: given.get(variable) or None for field, variable in VARIABLES.items()}
        first = (found.pop("tls_first") or "").lower() in _TRUE
        return cls(**found, tls_first=first)

    def options(self) -> dict[str, Any]:
        """Arguments of nats-py's ``connect``. Raises :class:`SecurityError`."""
        options: dict[str, Any] = {}
        if self.tls_first or self.ca_file or self.certificate_file or self.key_file:
            options["tls"] = self._context()
            options["tls_handshake_first"] = self.tls_first
        if self.nkey_file:
            options["nkeys_seed"] = str(_file("nkey_file", self.nkey_file))
            if find_spec("nkeys") is None:
                raise SecurityError("an nkey needs the package nkeys: pip install 'nats-py[nkeys]'")
        return options

    def changed_at(self) -> tuple[object, ...]:
        """Differs once a file of TLS was replaced or written to, as certificates are that soon expire."""
        paths = (self.ca_file, self.certificate_file, self.key_file)
        return tuple(None if path is None else _stamp(path) for path in paths)

    def _context(self) -> ssl.SSLContext:
        ca = None if self.ca_file is None else _file("ca_file", self.ca_file)
        if (self.certificate_file is None) != (self.key_file is None):
            raise SecurityError(
                f"{VARIABLES['certificate_file']} and {VARIABLES['key_file']} belong together: set both"
            )
        try:
            context = ssl.create_default_context(cafile=ca)
            if self.certificate_file is not None and self.key_file is not None:
                certificate = _file("certificate_file", self.certificate_file)
                context.load_cert_chain(certificate, _file("key_file", self.key_file))
        except (ssl.SSLError, OSError) as error:
            names = ", ".join(VARIABLES[field] for field in ("ca_file", "certificate_file", "key_file"))
            raise SecurityError(
                f"the files for TLS to NATS can't be used ({error}): check {names}"
            ) from error
        return context


def _stamp(path: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _file(field: str, path: str) -> Path:
    if not Path(path).is_file():
        raise SecurityError(f"{path} does not exist: check {VARIABLES[field]}")
    return Path(path)
