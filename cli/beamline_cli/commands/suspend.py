"""``beamline suspend`` and ``beamline resume``: changes of an object put aside, and let in again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from beamline_cli.faults import CliError, ExitCode
from beamline_cli.output import say
from beamline_cli.place import Context, Kubeconfig, Place, find_place

from .look import KINDS, State

if TYPE_CHECKING:
    pass

Kind = Annotated[str, typer.Argument(metavar="KIND", help="ext or rp; also KIND/NAME in one word.")]
Name = Annotated[str | None, typer.Argument(metavar="[NAME]", help="Name of the object.")]
Namespace = Annotated[
    str | None,
    typer.Option("--namespace", "-n", help="Namespace; default: where the only object of that name is."),
]
Force = Annotated[
    bool, typer.Option("--force", help="Change it although Argo CD or Flux owns it, and may undo it.")
]


def add_to(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    app.command(name="suspend")(suspend)
    app.command(name="resume")(resume)


def suspend(
    kind: Kind,
    name: Name = None,
    *,
    namespace: Namespace = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    state: State = None,
    force: Force = False,
) -> None:
    """Stop taking in changes of an object: what is served stays as it is.

    Sets `spec.suspend`, in the cluster or in the YAML file of a running `beamline up`. To take an extension
    out of every router set `enabled: false`, or `beamline isolate` it.
    """
    meant = _meant(kind, name)
    _change(*meant, namespace, find_place(kubeconfig, state, context), wanted=True, force=force)


def resume(
    kind: Kind,
    name: Name = None,
    *,
    namespace: Namespace = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    state: State = None,
    force: Force = False,
) -> None:
    """Take in changes of an object again, with all that were made meanwhile."""
    meant = _meant(kind, name)
    _change(*meant, namespace, find_place(kubeconfig, state, context), wanted=False, force=force)


def _meant(kind: str, name: str | None) -> tuple[str, str]:
    """Kind and name as the command line says them. Raises :class:`CliError`."""
    if name is None:
        kind, _, name = kind.partition("/")
    if not name:
        raise CliError("which one? give KIND NAME, such as `ext mock-provider`", ExitCode.USAGE)
    chosen = KINDS.get(kind.lower().removesuffix(".beamline.io"))
    if not chosen:
        raise CliError(f"there is no kind {kind!r} to suspend: it is ext or rp", ExitCode.USAGE)
    return chosen, name


def _change(
    chosen: str, name: str, namespace: str | None, place: Place, *, wanted: bool, force: bool
) -> None:
    item = _find(place, chosen, name, namespace)
    home = item["metadata"].get("namespace", "default")
    what = f"{chosen} {home}/{name}"
    word = "suspended" if wanted else "resumed"
    if bool(item["spec"].get("suspend")) is wanted:
        say(f"{what} is {'suspended' if wanted else 'not suspended'} already.")
        return
    _ask_owner(item, what, force)
    if place.running is None:
        _in_cluster(place, chosen, home, name, wanted)
    else:
        _in_file(place, chosen, home, name, wanted)
    say(f"{word} {what}")


def _find(place: Place, kind: str, name: str, namespace: str | None) -> dict[str, Any]:
    """The object that is meant. Raises :class:`CliError` where there is none, or several."""
    if place.running is None:
        from beamline_cli.kube import objects_of

        objects = objects_of(place, kind, namespace)
    else:
        from beamline_cli.up.state import read_objects

        objects = read_objects(place.running.state)
    found = [
        item
        for item in objects
        if (item["kind"], item["metadata"]["name"]) == (kind, name)
        and namespace in {None, item["metadata"].get("namespace", "default")}
    ]
    if not found:
        where = f" in namespace {namespace}" if namespace else ""
        raise CliError(f"{kind} {name!r} does not exist{where}: `beamline get` lists what does")
    if len(found) > 1:
        spaces = ", ".join(sorted(item["metadata"]["namespace"] for item in found))
        raise CliError(f"several are called {name}: give --namespace, one of {spaces}", ExitCode.USAGE)
    return found[0]


def _ask_owner(item: dict[str, Any], what: str, force: bool) -> None:
    from beamline_admin.objects.ownership import owner_of

    owner = owner_of(item["metadata"])
    if owner is not None and not force:
        raise CliError(
            f"{what} belongs to {owner}, which would undo the change: "
            "change it in the repository, or add --force"
        )


def _in_cluster(place: Place, kind: str, namespace: str, name: str, wanted: bool) -> None:
    import asyncio

    from beamline_cli.kube import FIELD_MANAGER, ROOT, with_cluster
    from beamline_contract.objects import PLURAL
    from beamline_sdk.deployment.kube_api import MERGE, KubeApi

    async def patch(api: KubeApi) -> None:
        await api.request(
            "PATCH",
            f"{ROOT}/namespaces/{namespace}/{PLURAL[kind]}/{name}",  # type: ignore[index]  # one of KINDS
            body={"spec": {"suspend": wanted}},
            content_type=MERGE,
            params={"fieldManager": FIELD_MANAGER},
        )

    asyncio.run(with_cluster(place, patch))


def _in_file(place: Place, kind: str, namespace: str, name: str, wanted: bool) -> None:
    import asyncio

    from beamline_admin.objects.files import FileObjects
    from beamline_admin.objects.port import ObjectsError
    from beamline_contract.objects import ObjectKey

    running = place.running
    assert running is not None
    objects = FileObjects(Path(running.folder), running.state)
    key = ObjectKey(kind, namespace, name)  # type: ignore[arg-type]  # one of KINDS

    async def write() -> None:
        held = await objects.get(key)
        if held is None:
            raise CliError(f"{key} is gone meanwhile")
        await objects.set_field(held, "suspend", True if wanted else None)

    try:
        asyncio.run(write())
    except ObjectsError as error:
        raise CliError(str(error)) from error
