"""What this process knows the registry to hold, so that a wake-up without a change costs no transaction.

The ledger starts empty: after a restart, or a new lease, each object is written once more, and the registry
answers UNCHANGED with the revision. It is forgotten, whole or key by key, whenever it may be wrong.
"""

from __future__ import annotations

from beamline_contract.objects import ObjectKey

from .view import Row


class Ledger:
    """Rows by object key."""

    def __init__(self) -> None:
        self._rows: dict[ObjectKey, Row] = {}
        self._keys: dict[int, set[ObjectKey]] = {}
        """By revision: routers report after every swap, and thousands of rows must not be read each time."""
        self._epoch: int | None = None

    def at_epoch(self, epoch: int) -> None:
        """Forgets everything that was learnt under another epoch."""
        if epoch != self._epoch:
            self._rows.clear()
            self._keys.clear()
            self._epoch = epoch

    def get(self, key: ObjectKey) -> Row | None:
        return self._rows.get(key)

    def put(self, key: ObjectKey, row: Row) -> None:
        self.forget(key)
        self._rows[key] = row
        self._keys.setdefault(row.revision, set()).add(key)

    def forget(self, key: ObjectKey) -> Row | None:
        """Returns what was known."""
        row = self._rows.pop(key, None)
        if row is not None:
            keys = self._keys[row.revision]
            keys.discard(key)
            if not keys:
                del self._keys[row.revision]
        return row

    def changed_between(self, after: int, until: int) -> set[ObjectKey]:
        """Keys of the rows with a revision in (after, until]."""
        if until - after <= len(self._keys):
            chosen = [
                self._keys[revision] for revision in range(after + 1, until + 1) if revision in self._keys
            ]
        else:
            chosen = [keys for revision, keys in self._keys.items() if after < revision <= until]
        return set().union(*chosen)

    def items(self) -> list[tuple[ObjectKey, Row]]:
        return list(self._rows.items())
