"""What all cases share: the cluster, the clients, and one installation that is made when first asked for."""

from __future__ import annotations

from uuid import uuid4

from .clients import Clients
from .install import CRDS, Installation, Values, values_of
from .kube import Kube
from .settings import Settings, SetupError


class World:
    """Owns every release of the run; :meth:`clear` takes all of them away, and the definitions too."""

    def __init__(self, settings: Settings, kube: Kube, clients: Clients) -> None:
        self.settings = settings
        self.kube = kube
        self.clients = clients
        self._common: Installation | None = None
        self._made: list[Installation] = []

    def start(self) -> None:
        """Raises :class:`SetupError` where somebody else's Beamline lives in the cluster: the suite deletes
        definitions, and with them every object.
        """
        there = [name for name in CRDS if self.kube.get("crd", name, "default") is not None]
        if there and not self.settings.adopt:
            raise SetupError(
                f"the cluster already has {', '.join(there)}. The suite deletes them, and with them every "
                "Extension and RoutingPolicy: take another cluster, or set BEAMLINE_E2E_ADOPT=1"
            )
        self.clients.start()

    def stop(self) -> None:
        self.clear()
        self.clients.stop()

    def values(self, *layers: Values) -> Values:
        """Values of an installation: what every one needs, and ``layers`` on top."""
        return values_of(self.settings, *layers)

    def common(self) -> Installation:
        """What most cases share: routers that ask for an API key, rolls on rotated Secrets."""
        if self._common is None:
            made = self.installation("beamline")
            made.make_key()
            made.install(self.common_values())
            self._common = made
        return self._common

    def common_values(self) -> Values:
        """Values of :meth:`common`."""
        return self.values(
            {
                "router": {"auth": {"existingSecret": "router-keys"}, "pollSeconds": 10},
                "operator": {"rollOnRotation": True},
            }
        )

    def installation(self, label: str, release: str = "beamline") -> Installation:
        """An installation in a namespace of its own; nothing is installed yet."""
        namespace = f"e2e-{label}-{uuid4().hex[:5]}"
        made = Installation(self.kube, self.clients, namespace, release)
        made.make_namespace()
        self._made.append(made)
        return made

    def clear(self) -> None:
        """No release, no definition, no object, also after a case that failed half-way."""
        for made in self._made:
            made.remove()
        self._made, self._common = [], None
        for kind in CRDS:
            for found in self.kube.items(kind):
                if found["metadata"].get("finalizers"):
                    where = ["-n", found["metadata"]["namespace"], "--type=merge"]
                    free = '{"metadata":{"finalizers":null}}'
                    self.kube.command("kubectl", "patch", kind, found["metadata"]["name"], *where, "-p", free)
        for name in CRDS:
            self.kube.kubectl("delete", "crd", name, "--ignore-not-found", "--timeout=120s")
