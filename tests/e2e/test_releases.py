"""Releases: an upgrade under load, an uninstallation that leaves what it names, two tenants."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from e2e.rig.case import Case
from e2e.rig.install import CRDS, Installation
from e2e.rig.kube import Kube, is_so, until
from e2e.rig.settings import named
from e2e.rig.world import World

PREVIOUS_CHART = Path(__file__).resolve().parent / "previous" / "beamline-0.0.9.tgz"
ANONYMOUS = {"router": {"auth": {"anonymous": True}}}
OF_KUBERNETES = {
    "configmaps": {"kube-root-ca.crt"},
    "serviceaccounts": {"default"},
    "events": None,
    "events.events.k8s.io": None,
    "endpointslices.discovery.k8s.io": None,
    "endpoints": None,
}
"""What a namespace holds without anybody's doing, by resource; None: whatever it is called."""


@contextmanager
def _case(world: World, install: Installation, label: str) -> Iterator[Case]:
    """A namespace for objects on an installation of one's own."""
    made = Case(world.kube, install, world.settings.image, label)
    made.start()
    try:
        yield made
    finally:
        world.kube.kubectl("delete", "namespace", made.namespace, "--wait=false", "--ignore-not-found")


def _everything(kube: Kube, namespace: str) -> set[str]:
    """resource/name of every object of a namespace, but for what Kubernetes itself puts there."""
    resources = kube.kubectl("api-resources", "--namespaced", "--verbs=list", "-o", "name").split()
    found: set[str] = set()
    for resource in resources:
        usual = OF_KUBERNETES.get(resource, set())
        if usual is None:
            continue
        said = kube.kubectl("get", resource, "-n", namespace, "-o", "name").split()
        found |= {
            f"{resource}/{line.rsplit('/', 1)[1]}" for line in said if line.rsplit("/", 1)[1] not in usual
        }
    return found


def _cluster_scoped(kube: Kube) -> set[str]:
    """kind/name of cluster-scoped objects that bear Beamline's name or labels."""
    found: set[str] = set()
    resources = kube.kubectl("api-resources", "--namespaced=false", "--verbs=list", "-o", "name").split()
    for resource in resources:
        if resource not in {"namespaces", "apiservices.apiregistration.k8s.io"}:  # these follow definitions
            said = kube.kubectl("get", resource, "-o", "name").split()
            found |= {line for line in said if "beamline" in line and "e2e-clients" not in line}
    return found


def test_an_upgrade_from_the_previous_chart_under_load_loses_no_request(bare: World) -> None:
    settings = bare.settings
    install = bare.installation("upgrade")
    install.make_key()
    keyed = {"router": {"auth": {"existingSecret": "router-keys"}}}
    chart = settings.previous_chart or str(PREVIOUS_CHART)
    install.install(bare.values(keyed, {"image": named(settings.previous_image)}), chart=chart)
    with _case(bare, install, "upgrade") as case:
        case.apply(case.extension("echo"), case.policy(case.provider("echo")))
        case.ready()
        before = install.kube.get("ext", case.named("echo"), case.namespace)
        with install.load(case.request(), pause_s=0.03) as load:
            load.goes_on()
            install.install(bare.values(keyed))
            for part in ("router", "operator"):
                _runs_only(install, part, settings.image)
            load.goes_on()
            load.ends_without_loss(at_least=300)
        case.ready()
        after = install.kube.get("ext", case.named("echo"), case.namespace)
        assert before is not None
        assert after is not None
        assert after["metadata"]["generation"] == before["metadata"]["generation"]
        case.patch("echo", {"spec": {"config": {"mode": "fixed", "answer": "upgraded"}}})
        case.ready()
        until("a change is served", lambda: install.ask(case.request())[1].get("output") == "upgraded")
        case.clean()


def _runs_only(install: Installation, component: str, image: str) -> None:
    def images() -> set[str]:
        pods = install.kube.items("pods", install.namespace, install.component(component))
        return {pod["spec"]["containers"][0]["image"] for pod in pods}

    until(f"{component}s run {image} alone", lambda: images() == {image})


@pytest.mark.parametrize("keep", [True, False], ids=["crds.keep=true", "crds.keep=false"])
def test_an_uninstallation_leaves_nothing_but_what_keep_and_retain_name(bare: World, keep: bool) -> None:
    kube = bare.kube
    untouched = _cluster_scoped(kube)
    install = bare.installation("uninstall")
    given = _everything(kube, install.namespace)
    install.install(bare.values(ANONYMOUS, {"crds": {"keep": keep}}))
    with _case(bare, install, "uninstall") as case:
        case.apply(
            case.extension("gone"),
            case.extension("kept", deletionPolicy="Retain"),
            case.policy(case.provider("gone", "kept")),
        )
        case.ready()
        if keep:
            _keeps_definitions_and_objects(case, install)
        else:
            _takes_everything_but_the_retained(case, install)
    until(
        "its namespace is as it was before",
        lambda: _everything(kube, install.namespace) == given,
        timeout_s=60,
    )
    left = {f"customresourcedefinition.apiextensions.k8s.io/{name}" for name in CRDS} if keep else set()
    assert _cluster_scoped(kube) - untouched == left


def _keeps_definitions_and_objects(case: Case, install: Installation) -> None:
    """Uninstalled with the objects still there: they stay, without a finalizer that nobody would take off."""
    kube = case.kube
    notes = install.uninstall()
    assert all(name in notes for name in CRDS)
    objects = [found for kind in ("ext", "rp") for found in kube.items(kind, case.namespace)]
    assert len(objects) == 3
    assert [found["metadata"].get("finalizers", []) for found in objects] == [[], [], []]
    kube.kubectl("delete", "ext,rp", "--all", "-n", case.namespace, "--timeout=30s")
    until("their workloads go with them", lambda: not kube.pods(case.namespace, ""))


def _takes_everything_but_the_retained(case: Case, install: Installation) -> None:
    """As the guide says: objects first, then the release. What Retain names outlives its object."""
    kube = case.kube
    kube.kubectl("delete", "rp,ext", "--all", "-n", case.namespace, "--timeout=60s")
    install.uninstall()
    kept = case.named("kept")
    until(
        "the retained workload alone runs",
        lambda: {found["metadata"]["name"] for found in kube.items("deployments", case.namespace)} == {kept},
    )
    mine = {name for name in _everything(kube, case.namespace) if not name.endswith(f"/{kept}")}
    assert not [name for name in mine if case.named("gone") in name], mine


def test_two_namespaced_installations_live_beside_each_other(bare: World) -> None:
    """Two tenants with the same ids: each has its own registry, NATS and operator, and Roles alone."""
    kube = bare.kube
    untouched = _cluster_scoped(kube)
    made: list[Case] = []
    for label in ("tenant-a", "tenant-b"):
        install = bare.installation(label)
        case = Case(kube, install, bare.settings.image, label)
        case.start()
        if made:
            case.tag = made[0].tag  # the very same names and ids
        made.append(case)
        scope = {"operator": {"namespaces": [case.namespace]}, "crds": {"enabled": len(made) == 1}}
        install.install(bare.values(ANONYMOUS, scope))
    try:
        for case in made:
            answer = {"mode": "fixed", "answer": case.install.namespace}
            case.apply(case.extension("echo", config=answer), case.policy(case.provider("echo")))
        for case in made:
            case.ready()
            assert case.install.answer(case.request())["output"] == case.install.namespace
            assert case.install.answer(case.request(), door="nats")["output"] == case.install.namespace
        definitions = {f"customresourcedefinition.apiextensions.k8s.io/{name}" for name in CRDS}
        assert _cluster_scoped(kube) - untouched == definitions
        _one_can_go(*made)
    finally:
        for case in made:
            kube.kubectl("delete", "namespace", case.namespace, "--wait=false", "--ignore-not-found")


def _one_can_go(first: Case, second: Case) -> None:
    """The one without definitions is uninstalled: the other's objects and answers don't change."""
    second.install.uninstall()
    found = first.get("echo")
    assert is_so(found, "Ready")
    assert found["metadata"]["finalizers"]
    assert first.install.answer(first.request())["output"] == first.install.namespace
    assert first.kube.get("ext", second.named("echo"), second.namespace) is not None


def test_the_notes_say_what_a_first_user_must_know(bare: World) -> None:
    """Without keys and without anonymous callers the door is closed, and Helm's notes say how to open it."""
    install = bare.installation("notes")
    notes = install.install(bare.values())
    assert "NOT FOR PRODUCTION" in notes
    assert "routers answer 401" in notes
    status, body = install.ask({"prompt": "hello"})
    assert (status, body["error"]["code"]) == (401, "UNAUTHENTICATED")
