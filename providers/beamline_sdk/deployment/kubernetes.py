"""Workloads in a cluster: the deployments port by server-side apply (:mod:`.manifests` says what is applied).

All objects have one field manager and, unless they are released, the Extension as their owner, so the API
server's garbage collector removes them with it. Server-side apply with force puts back what others changed in
our fields and leaves theirs alone.

The hash of what was asked for is an annotation of the Deployment: applying the same again costs one look. A
second hash, of the pods without their start configuration, decides whether a change rolls them: a new replica
count alone keeps the ``BEAMLINE_CONFIG`` that the pods started with. A Deployment whose spec others changed
since reports no hash, which makes its owner apply it again.

A Deployment of that name that somebody else made is never taken over: :class:`DeploymentError`, not
retryable.

Reads: with ``watched`` the adapter answers from what :meth:`KubernetesDeployments.observe` and ``relist``
were given, and only a rollout under way costs a request (its pods); without, each look is a GET.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from beamline_contract.names import FIELD_MANAGER, MANAGED_BY

from .kube_api import KubeApi, KubeError
from .manifests import (
    CONFIG_VARIABLE,
    HASH_ANNOTATION,
    PATHS,
    POD_HASH_ANNOTATION,
    manifests,
    path_of,
    pod_hash,
    selector_of,
)
from .pods import settled, status_of
from .port import DeploymentError, DeploymentRequest, DeploymentStatus, Phase

LABEL_SELECTOR: Final = f"app.kubernetes.io/managed-by={MANAGED_BY},app.kubernetes.io/part-of=beamline"
"""Picks every Deployment that Beamline made."""
_REFUSED: Final = frozenset({400, 403, 404, 422})


class KubernetesDeployments:
    """Deployments of one API server."""

    def __init__(self, api: KubeApi, *, watched: bool = False, field_manager: str = FIELD_MANAGER) -> None:
        self._api = api
        self._watched = watched
        self._field_manager = field_manager
        self._seen: dict[tuple[str, str], Mapping[str, Any]] = {}
        self._applied: dict[tuple[str, str], tuple[str, int]] = {}
        """(uid, generation) right after our last apply: another generation means that somebody changed the
        spec.
        """

    def observe(self, deployment: Mapping[str, Any], *, deleted: bool = False) -> None:
        """Takes in an event of a watch."""
        key = _key(deployment)
        if deleted:
            self._seen.pop(key, None)
            self._applied.pop(key, None)
        elif _version(deployment) >= _version(self._seen.get(key)):
            self._seen[key] = deployment

    def relist(self, deployments: Iterable[Mapping[str, Any]]) -> None:
        """Takes in a full list; what is not in it is gone."""
        listed = {_key(deployment): deployment for deployment in deployments}
        for key in self._seen.keys() - listed.keys():
            del self._seen[key]
        for deployment in listed.values():
            self.observe(deployment)

    async def deploy(self, request: DeploymentRequest) -> None:
        """Applies all objects of a workload. Raises :class:`DeploymentError`."""
        key = (request.namespace, request.name)
        running = await self._find(key)
        start_config = None
        if running is not None:
            if not _is_ours(running, request):
                if running["metadata"].get("labels", {}).get("app.kubernetes.io/managed-by") == MANAGED_BY:
                    raise DeploymentError(
                        "the Deployment of an earlier Extension of this name is still being removed"
                    )
                raise DeploymentError(
                    f"a Deployment {request.namespace}/{request.name} exists that Beamline did not make; "
                    "delete or rename it, or rename the Extension",
                    retryable=False,
                )
            annotations = running["metadata"].get("annotations") or {}
            if annotations.get(POD_HASH_ANNOTATION) == pod_hash(request):
                start_config = _start_config(running)
        try:
            for manifest in manifests(request, start_config):
                path = path_of(manifest["kind"], *key)
                applied = await self._api.apply(path, manifest, field_manager=self._field_manager)
        except KubeError as error:
            raise _translated(error) from error
        self._applied[key] = (applied["metadata"]["uid"], applied["metadata"]["generation"])
        self._seen[key] = applied

    async def get_status(self, namespace: str, name: str) -> DeploymentStatus:
        """How the workload is. Raises :class:`DeploymentError`."""
        key = (namespace, name)
        deployment = await self._find(key)
        if deployment is None or not deployment["metadata"].get("labels", {}).get("beamline.io/extension-id"):
            return DeploymentStatus(Phase.ABSENT)
        pods: list[Mapping[str, Any]] = []
        if not settled(deployment) and deployment.get("spec", {}).get("replicas", 1):
            pods = await self._pods(key)
        status = status_of(deployment, pods, HASH_ANNOTATION)
        applied = self._applied.get(key)
        if applied is not None and applied != (
            deployment["metadata"]["uid"],
            deployment["metadata"]["generation"],
        ):
            return DeploymentStatus(
                status.phase, status.replicas, status.ready_replicas, status.message, "", status.selector
            )
        return status

    async def delete(self, namespace: str, name: str) -> None:
        """Removes all objects of a workload that are ours. Raises :class:`DeploymentError`."""
        try:
            for kind in reversed(PATHS):
                path = path_of(kind, namespace, name)
                found = await self._api.find(path)
                if (
                    found is None
                    or found["metadata"].get("labels", {}).get("app.kubernetes.io/managed-by") != MANAGED_BY
                ):
                    continue
                await self._api.delete(path, uid=found["metadata"]["uid"])
        except KubeError as error:
            raise _translated(error) from error
        self._seen.pop((namespace, name), None)
        self._applied.pop((namespace, name), None)

    async def _find(self, key: tuple[str, str]) -> Mapping[str, Any] | None:
        if self._watched and key in self._seen:
            return self._seen[key]
        try:
            found = await self._api.find(path_of("Deployment", *key))
        except KubeError as error:
            raise _translated(error) from error
        return found

    async def _pods(self, key: tuple[str, str]) -> list[Mapping[str, Any]]:
        labels = ",".join(f"{name}={value}" for name, value in selector_of(key[1]).items())
        try:
            found = await self._api.request(
                "GET", f"/api/v1/namespaces/{key[0]}/pods", params={"labelSelector": labels, "limit": 20}
            )
        except KubeError as error:
            raise _translated(error) from error
        return list(found.get("items") or ())


def _is_ours(deployment: Mapping[str, Any], request: DeploymentRequest) -> bool:
    """Owned by this very Extension, or released by one (no owner, our label)."""
    owners = deployment["metadata"].get("ownerReferences") or []
    if owners:
        wanted = {request.owner_uid} if request.owner_uid else {owner.get("uid") for owner in owners}
        return any(owner.get("kind") == "Extension" and owner.get("uid") in wanted for owner in owners)
    return bool(deployment["metadata"].get("labels", {}).get("app.kubernetes.io/managed-by") == MANAGED_BY)


def _start_config(deployment: Mapping[str, Any]) -> str | None:
    containers = deployment.get("spec", {}).get("template", {}).get("spec", {}).get("containers") or [{}]
    for variable in containers[0].get("env") or ():
        if variable.get("name") == CONFIG_VARIABLE:
            return str(variable.get("value", ""))
    return None


def _key(deployment: Mapping[str, Any]) -> tuple[str, str]:
    return (str(deployment["metadata"]["namespace"]), str(deployment["metadata"]["name"]))


def _version(deployment: Mapping[str, Any] | None) -> int:
    """Resource versions of one resource are ordered numbers (Kubernetes 1.35 says so; etcd always did)."""
    if deployment is None:
        return 0
    text = str(deployment["metadata"].get("resourceVersion", "0"))
    return int(text) if text.isdigit() else 0


def _translated(error: KubeError) -> DeploymentError:
    if error.status in _REFUSED:
        return DeploymentError(
            f"the API server refuses the workload: {error}", retryable=error.status in {403, 404}
        )
    return DeploymentError(f"the API server can't be asked ({error})", retryable=error.retryable)
