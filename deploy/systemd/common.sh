# What install.sh and update-models.sh share: where things are, saying, testing, switching, starting. Sourced, with
# ROOT and WAIT_S set.
# shellcheck shell=bash disable=SC2034

opt=$ROOT/opt/sparsebert
etc=$ROOT/etc/sparsebert
state=$ROOT/var/lib/sparsebert

say() { echo "sparsebert: $*"; }

fail() {
    echo "sparsebert: $*" >&2
    exit 1
}

# A setting of the service, as systemd reads it in the environment file: without quotes and blanks around it.
setting() { # name default
    local value
    value=$(sed -nE "s/^[[:space:]]*$1[[:space:]]*=[[:space:]]*//p" "$etc/sparsebert.env" 2>/dev/null | tail -1 |
        sed -E "s/[[:space:]]*$//; s/^\"(.*)\"$/\1/; s/^'(.*)'$/\1/") || true
    echo "${value:-$2}"
}

# Makes a link point elsewhere, in one step that a power cut does not undo: what it points to is on the disk before,
# the link itself before anything else is done.
point() { # link target
    sync --file-system "$(dirname "$1")"
    ln --symbolic --no-dereference --force "$2" "$1.new"
    mv --no-target-directory "$1.new" "$1"
    sync --file-system "$(dirname "$1")"
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

# Starts the service anew, also where systemd has given up on it: a start limit refuses these starts, too, until it is
# told to forget those before.
restart() {
    systemctl reset-failed sparsebert 2>/dev/null || true  # it is not loaded yet
    systemctl restart sparsebert || true  # when it fails it is not ready either
    wait_until_ready
}

# Until /readyz says 200: every variant answers.
wait_until_ready() {
    local host
    host=$(setting SPARSEBERT_HOST 127.0.0.1)
    case $host in
        0.0.0.0) host=127.0.0.1 ;;
        ::) host="[::1]" ;;
        *:*) host="[$host]" ;;
    esac
    "$opt/current/bin/python" - "http://$host:$(setting SPARSEBERT_PORT 8000)/readyz" "$WAIT_S" <<'PYTHON'
import http.client
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
    except (OSError, http.client.HTTPException) as error:
        said = str(error)
    if time.monotonic() > deadline_s:
        sys.exit(f"sparsebert: {url} is not ready after {wait_s:g} s: {said}")
    time.sleep(0.2)
PYTHON
}
