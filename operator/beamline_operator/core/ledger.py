"""What this process knows the registry to hold, so that a wake-up without a change costs no transaction.

The ledger starts empty: after a restart, or a new lease, each object is written once more, and the registry
answers UNCHANGED with the revision. It is forgotten, whole or key by key, whenever it may be wrong.
"""

from __future__ import annotations

from collections.abc import Iterator

from beamline_contract.objects import ObjectKey

from .view import Row


class Ledger:
    """Rows by object key."""

    def __init__(self) -> None:
        self._rows: dict[ObjectKey, Row] = {}
        self._epoch: int | None = None

    def at_epoch(self, epoch: int) -> None:
        """Forgets everything that was learnt under another epoch."""
        if epoch != self._epoch:
            self._rows.clear()
            self._epoch = epoch

    def get(self, key: ObjectKey) -> Row | None:
        return self._rows.get(key)

    def put(self, key: ObjectKey, row: Row) -> None:
        self._rows[key] = row

    def forget(self, key: ObjectKey) -> Row | None:
        """Returns what was known."""
        return self._rows.pop(key, None)

    def changed_between(self, after: int, until: int) -> Iterator[ObjectKey]:
        """Keys of the rows with a revision in (after, until]."""
        return (key for key, row in self._rows.items() if after < row.revision <= until)

    def items(self) -> list[tuple[ObjectKey, Row]]:
        return list(self._rows.items())
