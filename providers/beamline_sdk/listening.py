"""The listening socket of an HTTP server, bound before the server begins, so that port 0 is known at once."""

from __future__ import annotations

import errno
import socket


class ListenError(RuntimeError):
    """The address can't be used; the message is one sentence for the person who started the process."""


def listen(host: str, port: int, *, purpose: str, backlog: int) -> socket.socket:
    """A listening socket that does not block. ``port`` is 0 (a free one) to 65535, ``backlog`` how many
    clients may stand in line. Raises :class:`ListenError`, whose message names the address and ``purpose``
    ("HTTP").
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    both = family == socket.AF_INET6 and socket.has_dualstack_ipv6()  # "::" is for IPv4, too
    try:
        bound = socket.create_server((host, port), family=family, backlog=backlog, dualstack_ipv6=both)
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        why = (
            "is taken: stop what listens there, or choose another port"
            if taken
            else f"can't be used: {error}"
        )
        raise ListenError(f"{host}:{port} for {purpose} {why}") from error
    bound.setblocking(False)
    return bound
