"""Health in PostgreSQL: tallies folded into rows and one-minute buckets, and read back as one answer.

Buckets are numbered by the database's clock, so it does not matter whose clock is wrong elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from . import instants
from .port import Health
from .tally import WINDOW_MINUTES, Tally

if TYPE_CHECKING:
    import asyncpg

    from .database import Connection

_FOLD: Final = """
INSERT INTO extension_health AS h
    (extension_id, success_count, failure_count, avg_latency_ms, last_success, last_failure, updated_at)
SELECT r.id, r.success, r.failure, r.latency / greatest(r.success + r.failure, 1),
    r.last_success, r.last_failure, now()
FROM jsonb_to_recordset($1) AS r(
    id text, success bigint, failure bigint, latency float8,
    last_success timestamptz, last_failure timestamptz)
JOIN extensions e ON e.id = r.id
ON CONFLICT (extension_id) DO UPDATE SET
    avg_latency_ms = (h.avg_latency_ms * (h.success_count + h.failure_count)
            + excluded.avg_latency_ms * (excluded.success_count + excluded.failure_count))
        / greatest(h.success_count + h.failure_count + excluded.success_count + excluded.failure_count, 1),
    success_count = h.success_count + excluded.success_count,
    failure_count = h.failure_count + excluded.failure_count,
    last_success = greatest(h.last_success, excluded.last_success),
    last_failure = greatest(h.last_failure, excluded.last_failure),
    updated_at = now()
"""
_FOLD_MINUTE: Final = """
INSERT INTO extension_health_minutes AS m (extension_id, minute, success, failure)
SELECT r.id, floor(extract(epoch FROM now()) / 60)::bigint, r.success, r.failure
FROM jsonb_to_recordset($1) AS r(id text, success bigint, failure bigint)
JOIN extension_health h ON h.extension_id = r.id
ON CONFLICT (extension_id, minute) DO UPDATE
    SET success = m.success + excluded.success, failure = m.failure + excluded.failure
"""
_FORGET_MINUTES: Final = (
    "DELETE FROM extension_health_minutes WHERE minute <= floor(extract(epoch FROM now()) / 60)::bigint - $1"
)
_HEALTH: Final = """
SELECT h.*, coalesce(sum(m.success), 0)::bigint AS window_success,
    coalesce(sum(m.failure), 0)::bigint AS window_failure
FROM extension_health h
LEFT JOIN extension_health_minutes m ON m.extension_id = h.extension_id
    AND m.minute > floor(extract(epoch FROM now()) / 60)::bigint - $2
WHERE $1::text IS NULL OR h.extension_id = $1
GROUP BY h.extension_id
ORDER BY h.extension_id COLLATE "C"
"""


async def fold(connection: Connection, tallies: Sequence[Tally]) -> None:
    """Adds what happened; ids without a row in ``extensions`` are left out. Inside a writer's transaction."""
    rows = [
        {
            "id": entry.extension_id,
            "success": entry.success,
            "failure": entry.failure,
            "latency": entry.latency_ms_sum,
            "last_success": instants.spell(entry.last_success) if entry.last_success else None,
            "last_failure": instants.spell(entry.last_failure) if entry.last_failure else None,
        }
        for entry in tallies
    ]
    await connection.execute(_FOLD, rows)
    await connection.execute(_FOLD_MINUTE, rows)
    await connection.execute(_FORGET_MINUTES, WINDOW_MINUTES)


async def health_of(connection: Connection, extension_id: str) -> Health | None:
    """Health of one extension, None where it has never been called."""
    row = await connection.fetchrow(_HEALTH, extension_id, WINDOW_MINUTES)
    return None if row is None else _health(row)


async def health_of_all(connection: Connection) -> list[Health]:
    """Health of every extension that was ever called, by id."""
    return [_health(row) for row in await connection.fetch(_HEALTH, None, WINDOW_MINUTES)]


def _health(row: asyncpg.Record) -> Health:
    return Health(
        extension_id=row["extension_id"],
        success_count=row["success_count"],
        failure_count=row["failure_count"],
        avg_latency_ms=row["avg_latency_ms"],
        last_success=instants.spell(row["last_success"]) if row["last_success"] else None,
        last_failure=instants.spell(row["last_failure"]) if row["last_failure"] else None,
        window_success=row["window_success"],
        window_failure=row["window_failure"],
    )
