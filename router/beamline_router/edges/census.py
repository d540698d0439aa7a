"""What metrics need to know of a table.

A table of thousands is counted at every reload, so what a policy says is read once, when the policy is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from beamline_contract.projection import ExtensionRecord

from ..core.slices import Sliced, batches


@dataclass(frozen=True, slots=True)
class Census:
    """What metrics need to know of a table: how many extensions of each (type, enabled), and the ids that may
    appear in labels, which are those that exist and those that a policy names though they do not.
    """

    sizes: dict[tuple[str, str], int]
    ids: set[str]


def counting(extensions: Iterable[ExtensionRecord], named: Iterable[set[str]]) -> Sliced[Census]:
    """Counted in pieces. ``named`` are the ids that each policy names, from :func:`ids_in`."""
    sizes: Counter[tuple[str, str]] = Counter()
    ids: set[str] = set()
    for records in batches(extensions):
        sizes.update((record.type, "true" if record.enabled else "false") for record in records)
        ids.update(record.id for record in records)
        yield
    for batch in batches(named):
        ids.update(*batch)
        yield
    return Census(dict(sizes), ids)


def ids_in(value: object) -> set[str]:
    """Every extension id that a stored policy names."""
    found: set[str] = set()
    if isinstance(value, dict):
        for key, entry in value.items():
            if key in {"extension_id", "provider_id", "fallback_id"} and isinstance(entry, str):
                found.add(entry)
            elif key == "fallback" and isinstance(entry, list):
                found.update(item for item in entry if isinstance(item, str))
            else:
                found |= ids_in(entry)
    elif isinstance(value, list):
        for entry in value:
            found |= ids_in(entry)
    return found
