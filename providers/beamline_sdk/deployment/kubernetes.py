"""Workloads in a cluster: the deployments port by server-side apply (:mod:`.manifests` says what is applied).

All objects have one field manager and, unless they are released, the Extension as their owner, so the API
server's garbage collector removes them with it. Server-side apply with force puts back what others changed in
our fields and leaves theirs alone.

The hash of what was asked for is an annotation of the Deployment: applying the same again costs one look. A
second hash, of the pods without their start configuration, decides whether a change rolls them: a new replica
count alone keeps the ``BEAMLINE_CONFIG`` that the pods started with. A workload of which others changed a
field or deleted an object since (:mod:`.ownership`), or that has an object too many, reports no hash, which
makes its owner apply it again.

An object of that name that somebody else made is never taken over: :class:`DeploymentError` with
``conflict``, not retryable.

With an autoscaler the replicas are nobody's business here. Taking a field out of an apply would reset it, so
on that change a second field manager takes the running count over first, and loses it to the autoscaler.

Reads: with ``watched`` the adapter answers from what :meth:`KubernetesDeployments.observe` and ``relist``
were given, and only a rollout under way costs a request (its pods); without, each look is a GET.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from beamline_contract.names import FIELD_MANAGER, MANAGED_BY

from .kube_api import JSON_PATCH, MERGE, KubeApi, KubeError
from .manifests import (
    API_VERSIONS,
    CONFIG_VARIABLE,
    HASH_ANNOTATION,
    OPTIONAL,
    PATHS,
    POD_HASH_ANNOTATION,
    manifests,
    path_of,
    pod_hash,
    selector_of,
)
from .mounts import REASON, waits_for_files
from .ownership import (
    RETAINED_ANNOTATION,
    fields_of,
    foreign_owner,
    has_extension,
    is_made_by,
    is_ours,
    is_retained,
    leaving,
    shortened,
    stands,
    taken_over,
)
from .pods import settled, status_of
from .port import DeploymentError, DeploymentRequest, DeploymentStatus, Found, Phase
from .readiness import said_by

LABEL_SELECTOR: Final = f"app.kubernetes.io/managed-by={MANAGED_BY},app.kubernetes.io/part-of=beamline"
"""Picks every object that Beamline made."""
_HANDOVER: Final = "beamline-replicas"
_INVALID: Final = 422
_FORBIDDEN: Final = 403
_REFUSED: Final = frozenset({400, 403, 404, 422})
_UNTYPED: Final = "failed to create typed patch object"
"""Words of a 500 that says the same each time: an apply that repeats a key, such as a variable's name."""
_Place = tuple[str, str, str]
"""Kind, namespace, name."""


class KubernetesDeployments:
    """Workloads of one API server. ``repairs`` counts what others changed and was found, by kind."""

    def __init__(self, api: KubeApi, *, watched: bool = False, field_manager: str = FIELD_MANAGER) -> None:
        self.repairs: dict[str, int] = {}
        self._api = api
        self._watched = watched
        self._field_manager = field_manager
        self._seen: dict[_Place, Mapping[str, Any]] = {}
        self._intact: dict[tuple[str, str], tuple[str, ...]] = {}
        """Hash and resource versions at which a workload was last found to be as applied."""

    def observe(self, kind: str, document: Mapping[str, Any], *, deleted: bool = False) -> None:
        """Takes in an event of a watch."""
        place = _place(kind, document)
        known = self._seen.get(place)
        if deleted:
            if known is not None and _version(known) <= _version(document):
                del self._seen[place]
        elif _version(document) >= _version(known):
            self._remember(place, document)

    def relist(self, kind: str, documents: Iterable[Mapping[str, Any]]) -> set[tuple[str, str]]:
        """Takes in a full list of one kind; what is not in it is gone. Returns namespace and name of whatever
        is not as it was last seen.
        """
        listed = {_place(kind, document): document for document in documents}
        gone = {place for place in self._seen if place[0] == kind and place not in listed}
        for place in gone:
            del self._seen[place]
        newer = {
            place
            for place, document in listed.items()
            if _version(document) > _version(self._seen.get(place))
        }
        for place in newer:
            self._remember(place, listed[place])
        return {(namespace, name) for _, namespace, name in gone | newer}

    async def deploy(self, request: DeploymentRequest) -> None:
        """Applies all objects of a workload and removes those that are no longer wanted. Raises
        :class:`DeploymentError`.
        """
        key = (request.namespace, request.name)
        try:
            found = await self._look(request)
            for kind, live in found.items():
                self._refuse_foreign(kind, live, request)
            running = found.get("Deployment")
            start_config = None
            if running is not None:
                annotations = running["metadata"].get("annotations") or {}
                if annotations.get(POD_HASH_ANNOTATION) == pod_hash(request):
                    start_config = _start_config(running)
                await self._hand_over_replicas(running, request)
            await self._take_back(found, request)
            wanted = manifests(request, start_config)
            for manifest in wanted:
                place = (manifest["kind"], *key)
                applied = await self._apply(path_of(*place), manifest)
                self._remember(place, applied)
            for kind in found.keys() - {manifest["kind"] for manifest in wanted}:
                await self._api.delete(path_of(kind, *key), uid=found[kind]["metadata"]["uid"])
                self._seen.pop((kind, *key), None)
        except KubeError as error:
            raise _translated(error) from error

    async def get_status(
        self, namespace: str, name: str, desired: DeploymentRequest | None = None
    ) -> DeploymentStatus:
        """How the workload is. Raises :class:`DeploymentError`."""
        key = (namespace, name)
        try:
            deployment = await self._find(("Deployment", *key))
            if deployment is None or not deployment["metadata"].get("labels", {}).get(
                "beamline.io/extension-id"
            ):
                return DeploymentStatus(Phase.ABSENT)
            pods: list[Mapping[str, Any]] = []
            if not settled(deployment) and deployment.get("spec", {}).get("replicas", 1):
                pods = await self._pods(key, deployment)
            told = await self._told(namespace, pods)
            status = status_of(deployment, pods, HASH_ANNOTATION, told, await said_by(pods, deployment))
            status = replace(status, retained=is_retained(deployment))
            if desired is not None and desired.hash == status.hash and not await self._is_intact(desired):
                return replace(status, hash="")
        except KubeError as error:
            raise _translated(error) from error
        return status

    async def delete(self, namespace: str, name: str) -> None:
        """Removes all objects of a workload that are ours. Raises :class:`DeploymentError`."""
        try:
            for kind in reversed(PATHS):
                path = path_of(kind, namespace, name)
                found = await self._api.find(path)
                if found is None or not is_made_by(found, self._field_manager):
                    continue
                await self._api.delete(path, uid=found["metadata"]["uid"])
        except KubeError as error:
            raise _translated(error) from error
        for kind in PATHS:
            self._seen.pop((kind, namespace, name), None)
        self._intact.pop((namespace, name), None)

    async def release(self, namespace: str, name: str) -> None:
        """Takes the Extension off the owners of all objects of a workload that are ours, and changes nothing
        else. Raises :class:`DeploymentError`.
        """
        try:
            for kind in PATHS:
                path = path_of(kind, namespace, name)
                found = await self._api.find(path)
                if found is None or not is_made_by(found, self._field_manager):
                    continue
                if not is_retained(found) or has_extension(found):
                    left = await self._api.request("PATCH", path, body=leaving(found), content_type=MERGE)
                    self._remember((kind, namespace, name), left)
        except KubeError as error:
            raise _translated(error) from error

    async def _apply(self, path: str, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """A refusal may be due to what others put beside our fields: once everything is ours, that goes."""
        try:
            return await self._api.apply(path, manifest, field_manager=self._field_manager)
        except KubeError as error:
            live = await self._api.find(path) if error.status == _INVALID else None
            books = taken_over(live, self._field_manager) if live is not None else None
            if live is None or books is None:
                raise
            patch = [
                {"op": "replace", "path": "/metadata/managedFields", "value": books},
                {
                    "op": "replace",
                    "path": "/metadata/resourceVersion",
                    "value": live["metadata"]["resourceVersion"],
                },
            ]
            await self._api.request("PATCH", path, body=patch, content_type=JSON_PATCH)
            return await self._api.apply(path, manifest, field_manager=self._field_manager)

    def workloads(self) -> Collection[Found]:
        """Of what was watched and listed: every workload that was made here, or a part of it."""
        found: dict[tuple[str, str], Found] = {}
        for (_, *key), live in self._seen.items():
            if not self._made(live):
                continue
            known = found.get((key[0], key[1]), Found(key[0], key[1]))
            owned, retained = known.owned or has_extension(live), known.retained or is_retained(live)
            found[key[0], key[1]] = replace(known, owned=owned, retained=retained)
        return list(found.values())

    def _made(self, live: Mapping[str, Any]) -> bool:
        return is_made_by(live, self._field_manager)

    async def _look(self, request: DeploymentRequest) -> dict[str, Mapping[str, Any]]:
        """What there is of a workload by kind. An object that is not wanted is looked for in memory only,
        where there is one.
        """
        wanted = {manifest["kind"] for manifest in manifests(request)}
        found = {}
        for kind in PATHS:
            place = (kind, request.namespace, request.name)
            live = self._seen.get(place)
            if live is None and (kind in wanted or not self._watched):
                live = await self._api.find(path_of(*place))
            if live is not None and (kind in wanted or (kind in OPTIONAL and self._made(live))):
                found[kind] = live
        return found

    async def _take_back(self, found: Mapping[str, Mapping[str, Any]], request: DeploymentRequest) -> None:
        """What is owned again is no longer retained. An apply does not take off what a patch put on."""
        for kind, live in found.items():
            if request.owner_uid and is_retained(live):
                path = path_of(kind, request.namespace, request.name)
                body = {"metadata": {"annotations": {RETAINED_ANNOTATION: None}}}
                await self._api.request("PATCH", path, body=body, content_type=MERGE)

    def _refuse_foreign(self, kind: str, live: Mapping[str, Any], request: DeploymentRequest) -> None:
        if is_ours(live, request.owner_uid, self._field_manager):
            return
        what = f"{kind} {request.namespace}/{request.name}"
        if has_extension(live):
            raise DeploymentError(f"the {what} of an earlier Extension of this name is still being removed")
        owner = foreign_owner(live)
        whose = "Beamline did not make it" if owner is None else f"{owner} owns it"
        raise DeploymentError(
            f"{what} exists and {whose}, so it is left alone; delete or rename it, or rename the Extension",
            retryable=False,
            conflict=True,
        )

    async def _is_intact(self, request: DeploymentRequest) -> bool:
        key = (request.namespace, request.name)
        versions = (request.hash, *(str(_version(self._seen.get((kind, *key)))) for kind in PATHS))
        if self._watched and self._intact.get(key) == versions:
            return True
        wanted = {manifest["kind"]: manifest for manifest in manifests(request)}
        for kind in PATHS:
            if kind not in wanted and kind not in OPTIONAL:
                continue
            live = await self._find((kind, *key), absent_is_known=True)
            manifest = wanted.get(kind)
            if manifest is None:
                intact = live is None or not self._made(live)
            else:
                intact = live is not None and stands(manifest, live, self._field_manager)
            if not intact:
                self.repairs[kind] = self.repairs.get(kind, 0) + 1
                return False
        self._intact[key] = versions
        return True

    async def _hand_over_replicas(self, running: Mapping[str, Any], request: DeploymentRequest) -> None:
        spec = fields_of(running, self._field_manager).get("f:spec") or {}
        if request.workload.autoscaling is None or request.replicas == 0 or "f:replicas" not in spec:
            return
        count = running.get("spec", {}).get("replicas", 0) or request.workload.autoscaling.min_replicas
        document = {
            "apiVersion": API_VERSIONS["Deployment"],
            "kind": "Deployment",
            "metadata": {"name": request.name, "namespace": request.namespace},
            "spec": {"replicas": count},
        }
        path = path_of("Deployment", request.namespace, request.name)
        await self._api.apply(path, document, field_manager=_HANDOVER)

    def _remember(self, place: _Place, document: Mapping[str, Any]) -> None:
        self._seen[place] = document if place[0] == "Deployment" else shortened(document, self._field_manager)

    async def _find(self, place: _Place, *, absent_is_known: bool = False) -> Mapping[str, Any] | None:
        if self._watched and (absent_is_known or place in self._seen):
            return self._seen.get(place)
        return await self._api.find(path_of(*place))

    async def _pods(self, key: tuple[str, str], deployment: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """The pods of the newest revision: what those before it suffer from says nothing about it."""
        labels = ",".join(f"{name}={value}" for name, value in selector_of(key[1]).items())
        found = await self._api.request(
            "GET", f"/api/v1/namespaces/{key[0]}/pods", params={"labelSelector": labels, "limit": 20}
        )
        newest = _pod_hash_in(deployment.get("spec", {}).get("template", {}))
        return [pod for pod in found.get("items") or () if not newest or _pod_hash_in(pod) == newest]

    async def _told(self, namespace: str, pods: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """The kubelet's events of one pod that waits for files: what one lacks, all of its revision lack."""
        waiting = min((pod["metadata"]["name"] for pod in pods if waits_for_files(pod)), default=None)
        if waiting is None:
            return []
        selector = f"regarding.kind=Pod,regarding.name={waiting},reason={REASON}"
        path = f"/apis/events.k8s.io/v1/namespaces/{namespace}/events"
        try:
            found = await self._api.request("GET", path, params={"fieldSelector": selector, "limit": 50})
        except KubeError as error:
            if error.status == _FORBIDDEN:  # the rest can be told without
                return []
            raise
        return list(found.get("items") or ())


def _start_config(deployment: Mapping[str, Any]) -> str | None:
    containers = deployment.get("spec", {}).get("template", {}).get("spec", {}).get("containers") or [{}]
    for variable in containers[0].get("env") or ():
        if variable.get("name") == CONFIG_VARIABLE:
            return str(variable.get("value", ""))
    return None


def _pod_hash_in(document: Mapping[str, Any]) -> str:
    annotations = document.get("metadata", {}).get("annotations") or {}
    return str(annotations.get(POD_HASH_ANNOTATION, ""))


def _place(kind: str, document: Mapping[str, Any]) -> _Place:
    return (kind, str(document["metadata"]["namespace"]), str(document["metadata"]["name"]))


def _version(deployment: Mapping[str, Any] | None) -> int:
    """Resource versions of one resource are ordered numbers (Kubernetes 1.35 says so; etcd always did)."""
    if deployment is None:
        return 0
    text = str(deployment["metadata"].get("resourceVersion", "0"))
    return int(text) if text.isdigit() else 0


def _translated(error: KubeError) -> DeploymentError:
    if error.status in _REFUSED or _UNTYPED in str(error):
        return DeploymentError(
            f"the API server refuses the workload: {error}", retryable=error.status in {403, 404}
        )
    return DeploymentError(f"the API server can't be asked ({error})", retryable=error.retryable)
