"""The ways through the inspector, in the order in which they are shown."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Entry:
    """One way. ``icon`` names a drawing in ``templates/icons.html``."""

    path: str
    title: str
    icon: str

    def leads_to(self, path: str) -> bool:
        """Whether ``path`` is this page, or one below it."""
        return path == self.path or (self.path != "/" and path.startswith(f"{self.path}/"))


ENTRIES: Final = (
    Entry("/", "Overview", "overview"),
    Entry("/extensions", "Extensions", "extensions"),
    Entry("/policies", "Policies", "policies"),
    Entry("/requests", "Requests", "requests"),
    Entry("/explain", "Explain", "explain"),
    Entry("/playground", "Playground", "playground"),
    Entry("/routers", "Routers", "routers"),
    Entry("/audit", "Audit", "audit"),
)


def entries(paths: Collection[str]) -> tuple[Entry, ...]:
    """Those entries whose pages are among ``paths``."""
    return tuple(entry for entry in ENTRIES if entry.path in paths)
