"""Checks of the registry's database."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from beamline_registry import migrate
from beamline_registry.inspection import OLDEST_SERVER, verify_newest
from beamline_registry.port import AuditBrokenError, SchemaError, SchemaPendingError

from .clocks import skew
from .patient import Finding, Patient, failed, ok, skipped, warning

AUDIT_ROWS: Final = 1_000
"""Newest rows of the audit log whose hashes are computed again; `beamline audit verify` does all."""


async def answers(patient: Patient) -> Finding:
    """PostgreSQL answers to this login."""
    found = await patient.registry()
    return ok(f"PostgreSQL {found.server} answers to {found.user}")


async def version(patient: Patient) -> Finding:
    """Its version is one that the migrations are made for."""
    found = await patient.registry()
    if found.major < OLDEST_SERVER:
        return failed(
            f"PostgreSQL {found.server} is older than {OLDEST_SERVER}",
            f"upgrade it to {OLDEST_SERVER} or newer",
        )
    return ok(f"{found.server} is {OLDEST_SERVER} or newer")


async def schema(patient: Patient) -> Finding:
    """The schema is this program's: no migration is pending, none is newer, none was edited."""
    assert patient.database_url is not None
    try:
        await migrate.require(patient.database_url)
    except SchemaPendingError as error:
        return failed(str(error), "the chart's migration Job does it, or `beamline migrate`")
    except SchemaError as error:
        return failed(str(error))
    revision = (await patient.registry()).revision
    return ok(f"at {migrate.latest()}, revision {revision}")


async def role(patient: Patient) -> Finding:
    """This login cannot change what stands in the audit log, and its connection is encrypted where it leaves
    the machine.
    """
    found = await patient.registry()
    if found.revision is None:
        return skipped("there is no registry yet")
    powers = [
        *(["is a superuser"] if found.superuser else []),
        *(["owns the audit log"] if found.owns_audit and not found.superuser else []),
        *([f"may {', '.join(found.may_change_audit)} the audit log"] if found.may_change_audit else []),
    ]
    if powers:
        return warning(
            f"{found.user} {' and '.join(powers)}: it can rewrite history",
            "operators and routers log in as members of beamline_operator and beamline_router "
            "(docs/registry-schema.md)",
        )
    host = urlsplit(patient.database_url or "").hostname
    if host and not found.encrypted and host not in {"localhost", "127.0.0.1", "::1"}:
        return warning(
            f"{found.user} has only what it needs, but the connection to {host} is not encrypted",
            "`sslmode=verify-full`",
        )
    return ok(f"{found.user} cannot change the audit log")


async def guards(patient: Patient) -> Finding:
    """The triggers that keep the audit log append-only stand, for everybody."""
    found = await patient.registry()
    if found.revision is None:
        return skipped("there is no registry yet")
    if found.guards_missing:
        return failed(
            f"the audit log is not guarded: {', '.join(found.guards_missing)} is missing or switched off",
            "somebody altered the table: restore the trigger from registry/beamline_registry/migrations",
        )
    return ok("triggers refuse to change what is written")


async def chain(patient: Patient) -> Finding:
    """The newest rows of the audit log are as they were written."""
    found = await patient.registry()
    assert patient.database_url is not None
    if found.revision is None:
        return skipped("there is no registry yet")
    try:
        rows = await verify_newest(patient.database_url, AUDIT_ROWS)
    except AuditBrokenError as error:
        return failed(
            str(error), "`beamline audit verify` checks all of it; a broken log is evidence: export it"
        )
    return ok(f"the newest {rows} rows hold together and end where the registry says")


async def clock(patient: Patient) -> Finding:
    """The database's clock and ours agree."""
    found = await patient.registry()
    return skew("the database's clock", found.clock - found.half_way)
