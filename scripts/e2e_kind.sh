#!/bin/sh
# The end-to-end suite on a kind cluster of its own: made, used, deleted. `make e2e-kind` calls it.
# KEEP=1 leaves the cluster for a look; NODE_IMAGE chooses the Kubernetes (kindest/node:v1.34.0).
set -eu
cd "$(dirname "$0")/.."
for tool in kind kubectl helm; do
  command -v "$tool" >/dev/null || { echo "make e2e-kind needs $tool on PATH (and docker or podman); make e2e takes any cluster" >&2; exit 69; }
done
name=${KIND_NAME:-beamline-e2e-$$}
KUBECONFIG=$(mktemp)
export KUBECONFIG
end() {
  if [ -n "${KEEP:-}" ]; then echo "kept: export KUBECONFIG=$KUBECONFIG; kind delete cluster --name $name"; return; fi
  kind delete cluster --name "$name" || true
  rm -f "$KUBECONFIG"
}
trap end EXIT
trap 'exit 130' INT TERM
kind create cluster --name "$name" --wait 180s ${NODE_IMAGE:+--image "$NODE_IMAGE"}
load="kind load docker-image --name $name"
.venv/bin/python scripts/e2e_images.py --load "$load" ${BEAMLINE_E2E_PREVIOUS_IMAGE:+--previous "$BEAMLINE_E2E_PREVIOUS_IMAGE"}
BEAMLINE_E2E_LOAD=$load .venv/bin/python scripts/run_e2e.py
