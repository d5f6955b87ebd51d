#!/bin/sh
# Installs what tests need beside Python: Debian's package prometheus (prometheus and promtool), 100 MB. Nothing of it
# is started, now or at boot: its unit is masked. Without it those tests are skipped, so on other systems nothing is
# lost but them.

set -eu

if command -v prometheus >/dev/null && command -v promtool >/dev/null; then
    echo "prometheus and promtool are here: nothing to do"
    exit 0
fi
if ! command -v apt-get >/dev/null; then
    echo "there is no apt-get here: install prometheus and promtool by other means, or their tests are skipped"
    exit 0
fi
as_root=
if [ "$(id -u)" != 0 ]; then
    if ! command -v sudo >/dev/null; then
        echo "only root can install packages, and there is no sudo: run \`make system-deps\` as root" >&2
        exit 1
    fi
    as_root=sudo
fi

echo "installing Debian's prometheus with apt-get${as_root:+ and sudo}, for the tests; it is not started"
if command -v systemctl >/dev/null; then
    $as_root systemctl mask --quiet prometheus.service
fi
# The runlevel keeps it from being started where there is no systemd.
if $as_root apt-get update --quiet &&
    $as_root env RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive \
        apt-get install --quiet --yes --no-install-recommends prometheus; then
    if command -v systemctl >/dev/null; then
        echo "to use it as a service of this machine, too: systemctl unmask prometheus, systemctl enable --now prometheus"
    fi
else
    echo "apt-get could not install prometheus, see above; its tests are skipped" >&2
    if command -v systemctl >/dev/null; then
        $as_root systemctl unmask --quiet prometheus.service
    fi
    exit 1
fi
