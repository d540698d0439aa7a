"""Rows and records: which column holds what, and the statements that follow from the columns alone.

Values travel as parameters only. A batch is one ``jsonb`` parameter that PostgreSQL takes apart by the
declared column types, so the number of statements does not grow with the batch, and no key of a document ever
becomes SQL.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from beamline_contract.projection import ExtensionRecord, PolicyRecord

from . import instants
from .changes import Record
from .port import AuditRecord

if TYPE_CHECKING:
    import asyncpg

_SHARED: Final = {
    "id": "text",
    "namespace": "text",
    "name": "text",
    "uid": "text",
    "generation": "bigint",
    "revision": "bigint",
    "created_at": "timestamptz",
}
EXTENSION: Final = {
    **_SHARED,
    "type": "text",
    "subject": "text",
    "timeout_ms": "integer",
    "retry": "integer",
    "enabled": "boolean",
    "config": "jsonb",
    "metadata": "jsonb",
    "version": "text",
    "weight": "integer",
    "spec": "jsonb",
}
POLICY: Final = {**_SHARED, "policy": "jsonb"}
AUDIT: Final = {
    "id": "bigint",
    "kind": "text",
    "extension_id": "text",
    "uid": "text",
    "generation": "bigint",
    "action": "text",
    "changed_by": "text",
    "changes": "jsonb",
    "timestamp": "timestamptz",
    "previous_hash": "text",
    "hash": "text",
    "request_id": "text",
}


def _names(columns: Mapping[str, str]) -> str:
    return ", ".join(f'"{name}"' for name in columns)


def _unpacked(columns: Mapping[str, str]) -> str:
    declared = ", ".join(f'"{name}" {kind}' for name, kind in columns.items())
    return f"jsonb_to_recordset($1) AS r({declared})"


def _insert(table: str, columns: Mapping[str, str]) -> str:
    names = _names(columns)
    return f"INSERT INTO {table} ({names}) SELECT {names} FROM {_unpacked(columns)} ORDER BY id"  # noqa: S608 -- fixed words


def _upsert(table: str, columns: Mapping[str, str]) -> str:
    changed = ", ".join(f'"{name}" = excluded."{name}"' for name in columns if name != "id")
    return (
        f"{_insert(table, columns)} ON CONFLICT (id) DO UPDATE SET {changed}, updated_at = now() "
        f"WHERE {table}.uid = excluded.uid AND {table}.generation <= excluded.generation"
    )


SELECT_EXTENSIONS: Final = f"SELECT {_names(EXTENSION)} FROM extensions"  # noqa: S608 -- our own words
SELECT_POLICIES: Final = f"SELECT {_names(POLICY)} FROM routing_policies"  # noqa: S608 -- our own words
SELECT_AUDIT: Final = f"SELECT {_names(AUDIT)} FROM extension_audit_log"  # noqa: S608 -- our own words
SELECT_NEWEST_AUDIT: Final = (
    f"SELECT DISTINCT ON (uid) {_names(AUDIT)} FROM extension_audit_log "  # noqa: S608 -- our own words
    "WHERE uid = ANY($1::text[]) ORDER BY uid, id DESC"
)
UPSERT_EXTENSIONS: Final = _upsert("extensions", EXTENSION)
UPSERT_POLICIES: Final = _upsert("routing_policies", POLICY)
INSERT_AUDIT: Final = _insert("extension_audit_log", AUDIT)


def extension_of(row: asyncpg.Record) -> ExtensionRecord:
    """The record in a row of ``extensions``."""
    return ExtensionRecord(**{**dict(row), "created_at": instants.spell(row["created_at"])})


def policy_of(row: asyncpg.Record) -> PolicyRecord:
    """The record in a row of ``routing_policies``."""
    return PolicyRecord(**{**dict(row), "created_at": instants.spell(row["created_at"])})


def audit_of(row: asyncpg.Record) -> AuditRecord:
    """The record in a row of ``extension_audit_log``."""
    fields = {**dict(row), "timestamp": instants.spell(row["timestamp"])}
    return AuditRecord(sequence=fields.pop("id"), object_id=fields.pop("extension_id"), **fields)


def parameter(records: Sequence[Record], columns: Mapping[str, str]) -> list[dict[str, Any]]:
    """Records as the parameter of an upsert."""
    return [{name: getattr(record, name) for name in columns} for record in records]


def audit_parameter(records: Sequence[AuditRecord]) -> list[dict[str, Any]]:
    """Audit records as the parameter of :data:`INSERT_AUDIT`."""
    names = {"id": "sequence", "extension_id": "object_id"}
    return [{column: getattr(record, names.get(column, column)) for column in AUDIT} for record in records]
