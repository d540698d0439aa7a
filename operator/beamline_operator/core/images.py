"""Which images workloads may use: the list of the operator's configuration. Pure."""

from __future__ import annotations

from collections.abc import Iterable


def is_allowed(image: str, entries: Iterable[str]) -> bool:
    """Whether one of ``entries`` allows ``image``; without any, every image is allowed."""
    listed = tuple(entries)
    return not listed or any(_is_within(image, entry) for entry in listed)


def _is_within(image: str, entry: str) -> bool:
    """The entry itself, with any tag or digest, or a path below it: ghcr.io/acme is not ghcr.io/acme-evil,
    and ghcr.io not what listens on another port there.
    """
    if not image.startswith(entry):
        return False
    rest = image[len(entry) :]
    if entry.endswith(("/", ":", "@")) or not rest or rest[0] == "/":
        return True
    return rest[0] in ":@" and "/" not in rest
