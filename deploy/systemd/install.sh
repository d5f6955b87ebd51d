#!/bin/bash
# Installs the service on a box without containers, or upgrades it. Run it as root, as often as you like: what is there
# already is left as it is.
#
#     deploy/systemd/install.sh                  # from this checkout
#     deploy/systemd/install.sh --dry-run        # only say what would be done
#     deploy/systemd/install.sh --wheels DIR     # on a box without a package index, from wheels copied there
#     deploy/systemd/install.sh --rollback       # back to the release before
#
# It writes
#     /opt/sparsebert/releases/ID                a virtual environment for each release; ID is a digest of its sources
#     /opt/sparsebert/current, previous          links to the release that serves and to the one before
#     /etc/systemd/system/sparsebert.service     the unit of the release that serves
#     /etc/sparsebert/sparsebert.env             settings; yours once the file is there
#     /usr/local/sbin/sparsebert-update-models   changes /var/lib/sparsebert/models, with a test and a way back
#
# A release that does not serve the models that are there on this box is not switched to; one that does not get ready
# is switched back from.

set -euo pipefail
umask 022
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
checkout=$(cd "$here/../.." && pwd)

# --- What may be set. -----------------------------------------------------------------------------------------------
ROOT=${ROOT:-}          # prefix of every path that is written, for tests
PYTHON=${PYTHON:-python3}
WAIT_S=${WAIT_S:-120}   # for /readyz after a restart
dry_run=
rollback=
wheels=()

usage() {
    sed -n '2,/^$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit "$1"
}
while (($#)); do
    case $1 in
        --dry-run) dry_run=yes ;;
        --rollback) rollback=yes ;;
        --wheels) shift; wheels=(--no-index --find-links "${1:?--wheels needs a folder}") ;;
        --help | -h) usage 0 ;;
        *) echo "install.sh: unknown word '$1'" >&2; usage 2 >&2 ;;
    esac
    shift
done

# shellcheck source=deploy/systemd/common.sh
source "$here/common.sh"
unit=$ROOT/etc/systemd/system/sparsebert.service
updater=$ROOT/usr/local/sbin/sparsebert-update-models

# --- Steps. ---------------------------------------------------------------------------------------------------------
# Does a step, or only says it.
step() { # sentence command...
    say "$1"
    shift
    if [[ -z $dry_run ]]; then "$@"; fi
}

check_python() {
    "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail "Python 3.11 or newer is needed: PYTHON=python3.11 $0"
    "$PYTHON" -c 'import ensurepip' 2>/dev/null || fail "the module venv is missing: apt-get install python3-venv"
}

# The same sources, pins and Python have the same name.
release_id() {
    (
        cd "$checkout"
        "$PYTHON" -c 'import platform, sys; print(sys.implementation.cache_tag, platform.machine())'
        sha256sum pyproject.toml constraints.txt deploy/systemd/*
        find sparsebert service training export -type f -not -name '*.pyc' | LC_ALL=C sort | xargs sha256sum
    ) | sha256sum | cut -c 1-12
}

build_release() { # folder
    rm -rf "$1"
    "$PYTHON" -m venv "$1"
    "$1/bin/python" -m pip install --quiet --disable-pip-version-check ${wheels[@]+"${wheels[@]}"} \
        --constraint "$checkout/constraints.txt" "${checkout}[serve]"
    install -D --mode 644 --target-directory "$1/systemd" "$here/sparsebert.service" "$here/common.sh"
    install --mode 755 --target-directory "$1/systemd" "$here/update-models.sh"
    touch "$1/complete"
}

switch_to() { # release
    local before
    before=$(readlink "$opt/current" || true)
    if [[ $before != "$1" ]]; then
        point "$opt/current" "$1"
        if [[ -n $before ]]; then point "$opt/previous" "$before"; fi
        changed=yes
    fi
    if ! cmp --silent "$1/systemd/sparsebert.service" "$unit"; then
        install -D --mode 644 "$1/systemd/sparsebert.service" "$unit"
        sync --file-system "$unit"
        changed=yes
    fi
}

start() {
    systemctl daemon-reload
    systemctl enable --quiet sparsebert
    if [[ ! -e $state/models ]]; then
        say "there are no models yet: $updater FOLDER brings them and starts the service"
        return
    fi
    restart
}

# --- The work. ------------------------------------------------------------------------------------------------------
changed=
if [[ -z $dry_run && -z $ROOT && $(id -u) != 0 ]]; then fail "run it as root, or with --dry-run"; fi

if [[ -n $rollback ]]; then
    release=$(readlink "$opt/previous") || fail "there is no release before this one"
    step "going back to $release" switch_to "$release"
    if [[ -z $dry_run ]] && ! start; then
        fail "the release before does not get ready either; see: journalctl --unit sparsebert"
    fi
    exit
fi

check_python
release=$opt/releases/$(release_id)
if [[ -e $release/complete ]]; then
    say "$release is there"
else
    step "making $release (some minutes)" build_release "$release"
fi
if [[ ! -e $etc/sparsebert.env ]]; then
    step "writing $etc/sparsebert.env" install -D --mode 644 "$here/sparsebert.env" "$etc/sparsebert.env"
fi
if [[ -n $dry_run ]]; then
    say "would test it with the models that are there, let $opt/current and $unit be this release's, and start it"
    exit
fi
if [[ -e $state/models ]]; then
    self_test "$release/bin/sparsebert" "$state/models" ||
        fail "this release does not serve the models of this box; nothing was switched"
fi
switch_to "$release"
install --directory "$(dirname "$updater")"
point "$updater" "$opt/current/systemd/update-models.sh"
if [[ -z $changed ]] && systemctl is-active --quiet sparsebert; then
    say "nothing has changed: the service goes on"
    exit
fi
say "$opt/current is $release"
if ! start; then
    before=$(readlink "$opt/previous") || fail "the service does not get ready; see: journalctl --unit sparsebert"
    say "it does not get ready; going back to $before"
    switch_to "$before"
    start || fail "the release before does not get ready either; see: journalctl --unit sparsebert"
    fail "the new release does not get ready on this box; the one before serves again"
fi
tidy "$opt/releases" "$opt/current" "$opt/previous"
