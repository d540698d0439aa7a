#!/usr/bin/env bash
# The end-to-end suite on the one-node cluster of ../shared/cluster, for Debian machines without a container engine; root.
# Builds the stand-ins for the official images that are missing, the image under test, starts the cluster, runs the suite
# and takes the cluster down, whatever happens. Binaries and stand-ins stay for the next run. KEEP=1 leaves the cluster up.
set -euo pipefail
cd "$(dirname "$0")/.."
here=${BEAMLINE_E2E_CLUSTER:-../shared/cluster}
cluster=$(cd "$here" && pwd)/cluster
export STORAGE_DRIVER=vfs BUILDAH_ISOLATION=chroot

leftovers() { # network namespaces of pods that are gone: a new pod with the same address would share its name on the bridge
  local n
  for n in $(ls /run/netns 2>/dev/null | grep '^cni-' || true); do
    if ip -n "$n" -4 addr show 2>/dev/null | grep -q 'inet 10\.244\.0\.'; then ip netns delete "$n"; fi
  done
  ip link delete cni0 2>/dev/null || true
}
end() {
  local code=$?
  trap - EXIT
  if [ -n "${KEEP:-}" ]; then echo "kept: $here/cluster down --wipe takes it down"; exit "$code"; fi
  "$cluster" down --wipe || true
  leftovers
  exit "$code"
}
trap end EXIT
trap 'exit 130' INT TERM
began=$SECONDS
said() { echo "== $((SECONDS - began)) s: $*"; }

"$cluster" down --wipe
leftovers
said "starting the cluster"
ready=$("$cluster" up | tee >(cat >&2) | grep '^export KUBECONFIG=')
eval "$ready"

has() { buildah images --quiet "$1" >/dev/null 2>&1; }
python=$(sed -n 's/^FROM \(\S*python\S*\).*/\1/p' Dockerfile | head -1)
nats=$(sed -n 's/^ *image: \(\S*\/nats:\S*\)$/\1/p' charts/beamline/values.yaml)
postgres=$(sed -n 's/^ *image: \(\S*\/postgres:\S*\)$/\1/p' charts/beamline/values.yaml)
if ! has "$python"; then
  prefix=$(command -v pyenv >/dev/null && pyenv prefix "$(pyenv latest 3.13)" || python3.13 -c 'import sys; print(sys.base_prefix)')
  said "a stand-in for $python from $prefix"; "$cluster" base-image "$python" "$prefix"
fi
has "$nats" || { said "a stand-in for $nats"; "$cluster" nats-image "$nats"; }
has "$postgres" || { said "a stand-in for $postgres"; "$cluster" postgres-image "$postgres"; }

said "building and loading images"
# Nothing is pulled: what the registries would give is there. The builder takes the machine's certificate authorities.
export BEAMLINE_IMAGE_ARGUMENTS=${BEAMLINE_IMAGE_ARGUMENTS:---pull-never --volume /etc/ssl/certs:/etc/ssl/certs:ro}
.venv/bin/python scripts/e2e_images.py --load "$cluster load"
for image in "$nats" "$postgres"; do "$cluster" load "$image"; done
said "running the suite"
export BEAMLINE_E2E_LOAD="$cluster load"
# One node, as slow as its machine is at the moment: what failed is run once more, alone, before it counts.
.venv/bin/python scripts/run_e2e.py "$@" || {
  said "once more, what failed"
  .venv/bin/python scripts/run_e2e.py --last-failed --last-failed-no-failures=none "$@"
}
said "done"
