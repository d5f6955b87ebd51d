# What install.sh and update-models.sh share: where things are, saying, testing, switching, waiting. Sourced, with ROOT
# and WAIT_S set.
# shellcheck shell=bash disable=SC2034

opt=$ROOT/opt/sparsebert
etc=$ROOT/etc/sparsebert
state=$ROOT/var/lib/sparsebert

say() { echo "sparsebert: $*"; }

fail() {
    echo "sparsebert: $*" >&2
    exit 1
}

# A setting of the service, as its environment file says it.
setting() { # name default
    local line
    line=$(grep --no-messages "^$1=" "$etc/sparsebert.env" | tail -1) || true
    line=${line#*=}
    echo "${line:-$2}"
}

# Makes a link point elsewhere, in one step.
point() { # link target
    ln --symbolic --no-dereference --force "$2" "$1.new"
    mv --no-target-directory "$1.new" "$1"
}

# Removes all of a folder but what two links point to.
tidy() { # folder link link
    local folder
    for folder in "$1"/*/; do
        folder=${folder%/}
        if [[ -d $folder && $folder != "$(readlink "$2")" && $folder != "$(readlink "$3")" ]]; then
            say "removing $folder"
            rm -rf "$folder"
        fi
    done
}

# Loads every variant that the settings name, verifies digests and replays golden examples: on this box, as a user
# without rights, with the memory that the service has. Prints the table.
self_test() { # sparsebert models
    systemd-run --quiet --wait --pipe --collect --property=DynamicUser=yes --property=NoNewPrivileges=yes \
        --property=ProtectSystem=strict --property=ProtectHome=yes --property=PrivateTmp=yes \
        --property=PrivateNetwork=yes --property=MemoryMax="$(systemctl show --property=MemoryMax --value sparsebert)" \
        --setenv=ORT_DISABLE_TELEMETRY=1 --property=EnvironmentFile="$etc/sparsebert.env" \
        "$1" serve --dry-run --models "$2"
}

# Until /readyz says 200: every variant answers.
wait_until_ready() {
    local host
    host=$(setting SPARSEBERT_HOST 127.0.0.1)
    if [[ $host == 0.0.0.0 ]]; then host=127.0.0.1; fi
    "$opt/current/bin/python" - "http://$host:$(setting SPARSEBERT_PORT 8000)/readyz" "$WAIT_S" <<'PYTHON'
import sys
import time
import urllib.error
import urllib.request

url, wait_s = sys.argv[1], float(sys.argv[2])
deadline_s = time.monotonic() + wait_s
while True:
    try:
        urllib.request.urlopen(url, timeout=5).close()
        print(f"sparsebert: {url} is ready")
        sys.exit()
    except urllib.error.HTTPError as error:
        said = error.read(1000).decode(errors="replace")
    except OSError as error:
        said = str(error)
    if time.monotonic() > deadline_s:
        sys.exit(f"sparsebert: {url} is not ready after {wait_s:g} s: {said}")
    time.sleep(0.2)
PYTHON
}
