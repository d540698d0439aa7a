"""What a connection asks of its server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from .http_exchange import Exchange, Header
from .http_sending import Turn

if TYPE_CHECKING:
    from .http_protocol import Connection


class Doors(Protocol):
    """Who serves what connections bring; all connections of a server share one."""

    leaving: bool
    """Whether connections end with their next answer."""
    connections: set[Connection]
    turn: Turn

    def refusal(self, path: str, headers: list[Header], *, keep: bool) -> tuple[bytes, bool, float] | None:
        """See ``http_refusals.Shedding``."""
        ...

    def start(self, exchange: Exchange) -> None:
        """Begins to serve."""
        ...

    def common(self) -> bytes:
        """Header lines of every answer."""
        ...

    def gone(self, connection: Connection) -> None:
        """A connection has ended."""
        ...
