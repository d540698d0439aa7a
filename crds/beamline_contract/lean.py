"""A faster start: structlog and nats-py without the optional libraries that our processes never use.

structlog loads rich for colourful tracebacks on a terminal, nats-py loads aiohttp for WebSockets; together
they are a quarter of what a router's start costs, and a third of an extension's. Both ask for them in a
``try`` and go on without. So for the moment of their import the names are marked as absent, in the way that
the import system documents for it (``None`` in ``sys.modules``), and set free again: whoever wants rich or
aiohttp later gets them.

Only a process that is one component and nothing else calls :func:`load`, before anything else is imported;
who embeds a component keeps the libraries as they are. With a WebSocket address aiohttp is needed, and stays.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Final

_FOR_TERMINALS: Final = ("rich", "better_exceptions")
_FOR_WEBSOCKETS: Final = ("aiohttp",)
_THEIR_USERS: Final = ("structlog", "nats.aio.client")


def load(environment: Mapping[str, str]) -> None:
    """Imports the two. ``environment`` names the NATS servers (``NATS_URL``, ``BEAMLINE_NATS_URL``)."""
    urls = environment.get("BEAMLINE_NATS_URL", "") + "," + environment.get("NATS_URL", "")
    unused = _FOR_TERMINALS if "ws://" in urls or "wss://" in urls else _FOR_TERMINALS + _FOR_WEBSOCKETS
    hidden = [name for name in unused if name not in sys.modules]
    modules: dict[str, object] = sys.modules  # type: ignore[assignment]  # None is documented and not in the type
    modules.update(dict.fromkeys(hidden))
    try:
        for name in _THEIR_USERS:
            import_module(name)
    finally:
        for name in hidden:
            del modules[name]
