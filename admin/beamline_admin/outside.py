"""What the admin process talks to beside the registry: where objects live, NATS, and who knows tokens."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from beamline_registry.port import RegistryReader
from beamline_sdk.link import LinkSettings

from .catalogue import Catalogue
from .identity import Verifier
from .objects.port import Objects
from .oidc import OidcSettings, OidcVerifier
from .routers import NatsRouters
from .scope import tenants_of
from .settings import AdminSettings

if TYPE_CHECKING:
    from beamline_sdk.deployment.kube_api import KubeApi


class OutsideError(Exception):
    """Something was named that can't be used; the message is one sentence."""


@dataclass(slots=True)
class Outside:
    """What the settings name. Nothing is asked before it is needed, so a start waits for nobody."""

    objects: Objects | None = None
    routers: NatsRouters | None = None
    verifiers: list[Verifier] = field(default_factory=list)
    kube: KubeApi | None = None

    @classmethod
    async def open(cls, settings: AdminSettings, reader: RegistryReader) -> Outside:
        """Prepares it. Raises :class:`OutsideError`."""
        made = cls()
        if settings.nats_url:
            link = LinkSettings(settings.nats_url, "beamline admin", settings.nats_credentials_file)
            made.routers = NatsRouters(link)
        if settings.oidc_issuer:
            made.verifiers.append(OidcVerifier(_oidc(settings), clock=time.monotonic))
        if settings.cluster:
            await made._open_cluster(settings, reader)
        elif settings.folder is not None and settings.state is not None:
            from .objects.files import FileObjects  # noqa: PLC0415 -- only a laptop has the YAML library loaded

            made.objects = FileObjects(settings.folder, settings.state)
        return made

    async def close(self) -> None:
        """Closes every connection. More than once is fine."""
        if self.routers is not None:
            await self.routers.close()
        if self.kube is not None:
            await self.kube.close()

    async def _open_cluster(self, settings: AdminSettings, reader: RegistryReader) -> None:
        from beamline_sdk.deployment.kube_api import KubeApi, KubeError  # noqa: PLC0415 -- half a second to load

        from .cluster_identity import ClusterVerifier  # noqa: PLC0415 -- as above
        from .objects.cluster import KubeObjects  # noqa: PLC0415 -- as above

        try:
            self.kube = await KubeApi.connect(settings.kubeconfig)
        except KubeError as error:
            raise OutsideError(str(error)) from error
        namespaces = tuple(part.strip() for part in settings.namespaces.split(",") if part.strip())
        self.objects = KubeObjects(self.kube, namespaces=namespaces)
        catalogue = Catalogue(reader)

        async def tenants() -> list[str]:
            view = await catalogue.view()
            return [name for policy in view.policies.values() for name in tenants_of(policy)]

        self.verifiers.append(
            ClusterVerifier(
                self.kube, audience=settings.token_audience, clock=time.monotonic, tenants=tenants
            )
        )


def _oidc(settings: AdminSettings) -> OidcSettings:
    return OidcSettings(
        issuer=settings.oidc_issuer,
        audience=settings.oidc_audience,
        jwks_url=settings.oidc_jwks_url,
        subject_claim=settings.oidc_subject_claim,
        role_claim=settings.oidc_role_claim,
        tenants_claim=settings.oidc_tenants_claim,
    )
