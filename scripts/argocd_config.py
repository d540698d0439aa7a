"""Writes deploy/argocd/argocd-cm.yaml from health.lua; ``--check`` says if it is stale (exit code 1)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).resolve().parent.parent / "deploy" / "argocd"
_HEAD: Final = """\
# Written by scripts/argocd_config.py from health.lua. Merge it into Argo CD's own settings:
#   kubectl -n argocd patch configmap argocd-cm --patch-file deploy/argocd/argocd-cm.yaml
apiVersion: v1
kind: ConfigMap
metadata: {name: argocd-cm, namespace: argocd, labels: {app.kubernetes.io/part-of: argocd}}
data:
"""
_APPLICATIONS: Final = """\
-- An Application of Applications waits for a wave only where it knows the health of Applications.
local hs = {status = "Progressing", message = ""}
if obj.status ~= nil and obj.status.health ~= nil then
  hs.status = obj.status.health.status or hs.status
  hs.message = obj.status.health.message or hs.message
end
return hs
"""


def page() -> str:
    """The whole file."""
    ours = (FOLDER / "health.lua").read_text()
    scripts = {"beamline.io_Extension": ours, "beamline.io_RoutingPolicy": ours}
    scripts["argoproj.io_Application"] = _APPLICATIONS
    return _HEAD + "".join(
        f"  resource.customizations.health.{kind}: |\n"
        + "".join(f"    {line}\n" if line else "\n" for line in text.splitlines())
        for kind, text in scripts.items()
    )


def main(arguments: list[str]) -> int:
    """Writes or checks; returns the exit code."""
    target = FOLDER / "argocd-cm.yaml"
    if "--check" in arguments:
        fresh = target.exists() and target.read_text() == page()
        if not fresh:
            print("deploy/argocd/argocd-cm.yaml is stale: run `python scripts/argocd_config.py`")
        return 0 if fresh else 1
    target.write_text(page())
    print("wrote deploy/argocd/argocd-cm.yaml")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
