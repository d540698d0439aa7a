"""The listening socket of an HTTP server, bound before the server begins, so that port 0 is known at once."""

from __future__ import annotations

import errno
import socket


class ListenError(RuntimeError):
    """The address can't be used; the message is one sentence for the person who started the process."""


def listen(host: str, port: int, *, purpose: str, backlog: int) -> socket.socket:
    """A listening socket that does not block; port 0 is a free one. ``backlog``: how many clients may stand
    in line. Raises :class:`ListenError`, whose message names the address and ``purpose`` ("HTTP").
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
        bound.listen(backlog)  # from here on clients wait instead of being refused
        bound.setblocking(False)
    except (OSError, OverflowError) as error:
        bound.close()
        taken = getattr(error, "errno", None) == errno.EADDRINUSE
        why = (
            "is taken: stop what listens there, or choose another port"
            if taken
            else f"can't be used: {error}"
        )
        raise ListenError(f"{host}:{port} for {purpose} {why}") from error
    return bound
