"""The last lines of a start: what runs where, and what to try."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from beamline_cli.output import say

from .progress import Progress
from .world import DATABASE, World

if TYPE_CHECKING:
    from beamline_operator.core.ports import StoredObject
    from beamline_operator.edges.files import FileStore

_HEADER: Final = ("WHAT", "STATE", "WHERE", "PROCESS", "LOG")
_COLOURS: Final = {"ready": None, "Overridden": "yellow", "MatchesNothing": "yellow", "Disabled": "dim"}
"""What is well, but not as its author may think, is neither plain nor red."""
_EXAMPLE: Final = "  Mail   ME at jane.doe@example.com "


def show_summary(world: World, progress: Progress) -> None:
    """The table, a curl line, and how to go on."""
    plan = world.plan
    rows = [*_servers(world), *_processes(world), *_others(world)]
    say()
    progress.table(_HEADER, rows, [_COLOURS.get(row[1], "red") for row in rows])
    say()
    progress.line("ready", f"in {progress.seconds:.1f} s; state in {plan.state_folder}", "bold")
    say()
    say("Try it:")
    say(f"  curl -s {world.url}/v1/route -H 'content-type: application/json' \\")
    say(f"""    -d '{{"prompt": "{_EXAMPLE}"}}'""")
    say(f'  beamline invoke "{_EXAMPLE}"')
    say()
    if world.admin is not None:
        say(f"Inspector: {world.admin.login_url}")
        say(f"Admin API: {world.admin.url}/api/v1 with 'Authorization: Bearer {world.admin.token}'")
        say()
    edits = f"Edit {plan.folder}: changes are taken in as you save. " if plan.watch else ""
    say(f"{edits}Ctrl-C stops everything.")
    say()


def stored_objects(store: FileStore) -> Iterator[StoredObject]:
    """All objects, Extensions first."""
    from beamline_contract.objects import KINDS

    for kind in KINDS:
        yield from store.list(kind)


def ready_condition(stored: StoredObject) -> dict[str, Any]:
    """The Ready condition of an object; empty before it has one."""
    for condition in stored.status.get("conditions", ()):
        if condition["type"] == "Ready":
            return dict(condition)
    return {}


def remark_of(ready: Mapping[str, Any]) -> str:
    """The reason why an object is ready and yet not as its author may think; empty where there is none."""
    reason = str(ready.get("reason", ""))
    return "" if ready.get("status") != "True" or reason == "Ready" else reason


def _servers(world: World) -> Iterator[tuple[str, ...]]:
    logs = world.plan.logs
    where = f"unix socket, database {DATABASE}"
    yield "postgresql", "ready", where, str(world.postgres.pid), str(logs / "postgres.log")
    yield "nats", "ready", world.nats.url, str(world.nats.pid), str(logs / "nats.log")
    assert world.router is not None
    health = world.router.health
    if world.admin is not None:
        now = world.admin.process.health
        yield "admin", str(now.state), world.admin.url, str(now.pid or "-"), str(logs / "admin.log")
    yield "router", str(health.state), world.url, str(health.pid or "-"), str(logs / "router.log")


def _processes(world: World) -> Iterator[tuple[str, ...]]:
    assert world.store is not None
    assert world.deployments is not None
    subjects = {
        (stored.metadata.namespace, stored.metadata.name): str(getattr(stored, "subject", "-"))
        for stored in world.store.list("Extension")
    }
    for info in world.deployments.processes():
        where = subjects.get((info.namespace, info.name), "-")
        yield info.name, str(info.health.state), where, str(info.health.pid or "-"), str(info.log)


def _others(world: World) -> Iterator[tuple[str, ...]]:
    """Policies, and extensions that no process runs for, with the reason."""
    assert world.store is not None
    assert world.deployments is not None
    running = {(info.namespace, info.name) for info in world.deployments.processes()}
    for stored in stored_objects(world.store):
        ready = ready_condition(stored)
        well = ready.get("status") == "True"
        if stored.kind == "Extension" and (stored.metadata.namespace, stored.metadata.name) in running:
            continue
        remark = remark_of(ready)
        if stored.kind == "RoutingPolicy" and well and not remark:
            where = "policy in the router"
        else:
            where = ready.get("message", "-")
        state = (remark or "ready") if well else str(ready.get("reason", "unknown"))
        yield stored.metadata.name, state, str(where), "-", "-"
