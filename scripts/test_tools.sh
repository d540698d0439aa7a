#!/bin/sh
# Debian packages that tests drive and PyPI does not have: Chromium for the inspector, Prometheus and promtool for
# dashboards and alerts. Installs what is missing; elsewhere, install them as your system does.
set -eu
missing=
command -v chromium >/dev/null || command -v google-chrome >/dev/null || missing="$missing chromium"
command -v promtool >/dev/null || missing="$missing prometheus"
[ -z "$missing" ] && exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
  echo "tests of the inspector or of the alerts need:$missing" >&2
  exit 1
fi
export DEBIAN_FRONTEND=noninteractive
# 101: no service starts because its package was installed.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod +x "$policy"
  trap 'rm -f "$policy"' EXIT
fi
apt-get update -qq
# shellcheck disable=SC2086  # a list of words
apt-get install -y -qq --no-install-recommends $missing >/dev/null
