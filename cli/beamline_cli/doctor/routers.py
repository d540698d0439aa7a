"""Checks of the routers that run, by what they say over NATS."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from beamline_contract import __version__

from .clocks import skew
from .patient import Finding, Patient, RouterAnswer, Verdict, failed, first, ok, skipped, warning

STALE_S: Final = 180.0
"""Routers read the registry at least every 30 s; the alert BeamlineTableStale says the same."""
_NOBODY: Final = skipped("no router answers")


async def present(patient: Patient) -> Finding:
    """Routers answer, as many as shall run."""
    found = await patient.routers()
    wanted = 0
    if patient.api is not None:
        wanted = sum(item["spec"].get("replicas", 1) for item in await patient.deployments("router"))
    if not found:
        return failed(
            "no router answers on this NATS",
            "`beamline logs router`; a router whose NATS, account or permissions differ stays silent",
        )
    if len(found) < wanted:
        return failed(f"{len(found)} of {wanted} routers answer", "`beamline logs router`")
    return ok(f"{len(found)} routers answer: {first([one.instance for one in found])}")


async def reports(patient: Patient) -> Finding:
    """Routers take requests: neither starting nor cut off from a neighbour."""
    found = await patient.routers()
    if not found:
        return _NOBODY
    away = [f"{one.instance} is {one.said['status']}" for one in found if one.said["status"] != "ready"]
    if away:
        return warning(first(away), "`beamline status --live -o json` says what is stale")
    return ok("all are ready, connected to NATS and the registry")


async def revisions(patient: Patient) -> Finding:
    """All routers serve the same table, and it is the registry's newest."""
    found = await patient.routers()
    if not found:
        return _NOBODY
    served = {int(one.said["revision"]) for one in found}
    if len(served) > 1:
        told = [f"{one.instance}: {one.said['revision']}" for one in found]
        return warning(
            f"routers serve different revisions: {first(told)}",
            "look again in a minute; then the log of the older one",
        )
    (revision,) = served
    if patient.database_url is not None:
        newest = (await patient.registry()).revision or 0
        if revision < newest:
            return warning(
                f"routers serve revision {revision}, the registry has {newest}",
                "look again in a minute; then `beamline logs router`",
            )
    return ok(f"all serve revision {revision}")


async def fresh(patient: Patient) -> Finding:
    """Each has read the registry lately."""
    found = await patient.routers()
    if not found:
        return _NOBODY
    old = [
        f"{one.instance} ({one.said['age_seconds']:.0f} s)"
        for one in found
        if one.said["age_seconds"] > STALE_S
    ]
    if old:
        return failed(
            f"has not seen the registry for long: {first(old)}",
            "PostgreSQL, its credentials, the NetworkPolicy's ports",
        )
    return ok(f"the oldest look at the registry is {max(one.said['age_seconds'] for one in found):.0f} s ago")


async def refusals(patient: Patient) -> Finding:
    """No router refuses an object."""
    found = await patient.routers()
    if not found:
        return _NOBODY
    told = sorted(
        {
            f"{fault['kind']} {fault['id']}: {fault['field']}: {fault['reason']}"
            for one in found
            for fault in one.said["refused"]
        }
    )
    if told:
        return failed(
            f"refused, the last good version serves: {first(told, 3)}",
            "correct the object; `beamline explain` and `beamline diff` show it",
        )
    return ok("no router refuses an object")


async def versions(patient: Patient) -> Finding:
    """Routers are of one release, and of this program's."""
    found = await patient.routers()
    if not found:
        return _NOBODY
    by = {one.instance: str(one.said.get("version", "older than 0.1.0")) for one in found}
    different = sorted(set(by.values()))
    if len(different) > 1:
        return warning(
            f"routers of different releases answer: {', '.join(different)}",
            "an upgrade under way, or one that stands",
        )
    if different != [__version__]:
        return warning(
            f"routers are {different[0]}, this program is {__version__}", "use the program of the release"
        )
    return ok(f"all are {__version__}")


async def clocks(patient: Patient) -> Finding:
    """The routers' clocks and ours agree."""
    found = [one for one in await patient.routers() if "unix_ms" in one.said]
    if not found:
        return skipped("no router tells its time")
    findings = [skew(f"the clock of {one.instance}", _difference(one)) for one in found]
    for verdict in (Verdict.FAILED, Verdict.WARNING):
        for finding in findings:
            if finding.verdict is verdict:
                return finding
    return ok(f"the clocks of {len(found)} routers agree with this machine's")


async def keys(patient: Patient) -> Finding:
    """Callers are known by API keys."""
    found = await patient.routers()
    if not found:
        return _NOBODY
    without = [one.instance for one in found if not one.said.get("keys_total")]
    if without and len(without) < len(found):
        return failed(
            f"{first(without)} has no API keys, the others have",
            "the same Secret for all: `router.auth.existingSecret`",
        )
    if without:
        if patient.running is not None:
            return ok("no API keys: callers of this machine alone are served")
        return warning(
            "no API keys: callers of other machines get 401, or everybody is served where that was chosen",
            "`beamline keys new`, and `router.auth.existingSecret`",
        )
    return ok(f"{max(int(one.said['keys_total']) for one in found)} API keys in use")


async def breakers(patient: Patient) -> Finding:
    """No extension is kept from requests."""
    found = await patient.routers()
    if not found:
        return _NOBODY
    states: dict[str, set[str]] = {}
    for one in found:
        for extension, state in one.said["breakers"].items():
            if state != "closed":
                states.setdefault(extension, set()).add(state)
    if not states:
        return ok("every breaker is closed")
    told = [f"{extension} ({', '.join(sorted(words))})" for extension, words in sorted(states.items())]
    if any("open" in words for words in states.values()):
        return failed(
            f"kept from requests: {first(told)}",
            "`beamline logs EXTENSION`; `beamline reset EXTENSION` when it is mended",
        )
    return warning(f"kept from requests: {first(told)}", "`beamline reset EXTENSION` ends an isolation")


def _difference(one: RouterAnswer) -> timedelta:
    return timedelta(milliseconds=float(one.said["unix_ms"]) - one.arrived_ms)
