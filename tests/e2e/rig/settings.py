"""What a run of the suite is told by its environment; each variable is explained in docs/e2e-guide.md."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from beamline_contract import __version__

ROOT = Path(__file__).resolve().parents[3]
CHART = ROOT / "charts" / "beamline"
SHIPPED_IMAGE = f"ghcr.io/beamline/beamline:{__version__}"
"""The name that the manifests of examples/ give."""


class SetupError(RuntimeError):
    """The suite can't run as it was started; the message says what to do."""


@dataclass(frozen=True)
class Settings:
    """Source of every default: what `make image` builds, and what the chart names."""

    kubeconfig: Path
    image: str
    next_image: str
    previous_image: str
    previous_chart: str
    nats_image: str
    postgres_image: str
    python_base: str
    load_command: str
    adopt: bool

    @classmethod
    def from_environment(cls) -> Settings:
        """Raises :class:`SetupError` where something is missing, naming it."""
        kubeconfig = os.environ.get("BEAMLINE_E2E_KUBECONFIG", "")
        if not kubeconfig:
            raise SetupError(
                "the end-to-end suite writes to a whole cluster and runs only where it is told which: "
                "make e2e KUBECONFIG=path, or make e2e-kind for a cluster of its own (docs/e2e-guide.md)"
            )
        path = Path(kubeconfig).expanduser().resolve()
        if not path.is_file():
            raise SetupError(f"BEAMLINE_E2E_KUBECONFIG names {path}, which is no file")
        for tool in ("kubectl", "helm"):
            if shutil.which(tool) is None:
                raise SetupError(f"{tool} is not on PATH: the suite drives the cluster by kubectl and Helm 3")
        image = os.environ.get("BEAMLINE_E2E_IMAGE") or SHIPPED_IMAGE
        return cls(
            kubeconfig=path,
            image=image,
            next_image=os.environ.get("BEAMLINE_E2E_NEXT_IMAGE") or f"{image}-next",
            previous_image=os.environ.get("BEAMLINE_E2E_PREVIOUS_IMAGE") or f"{image}-previous",
            previous_chart=os.environ.get("BEAMLINE_E2E_PREVIOUS_CHART", ""),
            nats_image=os.environ.get("BEAMLINE_E2E_NATS_IMAGE", ""),
            postgres_image=os.environ.get("BEAMLINE_E2E_POSTGRES_IMAGE", ""),
            python_base=os.environ.get("BEAMLINE_E2E_PYTHON", "python"),
            load_command=os.environ.get("BEAMLINE_E2E_LOAD", ""),
            adopt=bool(os.environ.get("BEAMLINE_E2E_ADOPT")),
        )


def named(image: str) -> dict[str, str]:
    """An image's name as the chart's values: repository, tag, digest."""
    rest, _, digest = image.partition("@")
    repository, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:  # a port, no tag
        repository, tag = rest, "latest"
    return {"repository": repository, "tag": tag, "digest": digest}
