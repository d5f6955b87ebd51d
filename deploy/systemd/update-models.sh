#!/bin/bash
# Changes the models of a box: all or nothing, with a test before and a way back after. Run it as root.
#
#     sparsebert-update-models FOLDER        # bundles laid out as FOLDER/MODEL/VARIANT/
#     sparsebert-update-models --rollback    # back to the models before
#
# The folder is copied beside the models that serve; `sparsebert serve --dry-run` verifies its digests and replays its
# golden examples on this box, with its settings; then one link is switched and the service restarted. When the test
# fails nothing has changed. When the service does not get ready, the link goes back and the old models serve again.

set -euo pipefail
umask 022
here=$(cd "$(dirname "$(readlink --canonicalize "${BASH_SOURCE[0]}")")" && pwd)

# --- What may be set. -----------------------------------------------------------------------------------------------
ROOT=${ROOT:-}          # prefix of every path, for tests
WAIT_S=${WAIT_S:-120}   # for /readyz after a restart

# shellcheck source=deploy/systemd/common.sh
source "$here/common.sh"

# --- Steps. ---------------------------------------------------------------------------------------------------------
# The digest of all files and their names.
models_id() { # folder
    (cd "$1" && find -L . -type f | LC_ALL=C sort | xargs -d '\n' sha256sum) | sha256sum | cut -c 1-12
}

copy_beside() { # from to
    new=$(mktemp --directory "$state/releases/.new-XXXXXX")
    trap 'rm -rf "$new"' EXIT
    cp --recursive --dereference "$1/." "$new"
    chmod --recursive u=rwX,go=rX "$new"
    self_test "$opt/current/bin/sparsebert" "$new" ||
        fail "these models do not pass their test on this box; nothing was changed"
    mv --no-target-directory "$new" "$2"
}

# Serves other models, and goes back to those before when the service does not get ready.
serve_models() { # folder
    local before
    before=$(readlink "$state/models" || true)
    point "$state/models" "$1"
    if restart; then
        if [[ -n $before ]]; then point "$state/previous" "$before"; fi
        return
    fi
    if [[ -z $before ]]; then
        rm "$state/models"
        systemctl stop sparsebert
        fail "the service does not get ready with these models, and none were there before; it is stopped"
    fi
    say "going back to $before"
    point "$state/models" "$before"
    tidy "$state/releases" "$state/models" "$state/previous"
    restart || fail "the old models do not get ready either; see: journalctl --unit sparsebert"
    fail "the service does not get ready with these models; the old ones serve again"
}

# --- The work. ------------------------------------------------------------------------------------------------------
if (($# != 1)) || [[ $1 == --help ]]; then
    sed -n '2,/^$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    [[ ${1:-} == --help ]] || exit 2
    exit
fi
[[ -x $opt/current/bin/sparsebert ]] || fail "there is no $opt/current; run install.sh first"
install --directory "$state/releases"
exec 9>"$state/releases/.lock"
flock --nonblock 9 || fail "another update is running"

if [[ $1 == --rollback ]]; then
    release=$(readlink "$state/previous") || fail "there are no models before these"
else
    [[ -n $(find "$1" -mindepth 3 -maxdepth 3 -name manifest.json -print -quit) ]] ||
        fail "$1 has no bundles; they lie in FOLDER/MODEL/VARIANT/"
    id=$(models_id "$1")
    release=$state/releases/$id
    while [[ -d $release && $(models_id "$release") != "$id" ]]; do release+=x; done  # what lies there was damaged
    if [[ ! -d $release ]]; then copy_beside "$1" "$release"; fi
fi
if [[ $(readlink "$state/models") == "$release" ]]; then
    say "these models serve already"
    exit
fi
serve_models "$release"
tidy "$state/releases" "$state/models" "$state/previous"
