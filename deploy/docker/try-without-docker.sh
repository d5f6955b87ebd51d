#!/bin/bash
# Builds the serve image from its Dockerfile and runs it as hardened as docker-compose.yml does, where there is no
# Docker engine: Debian's buildah executes the Dockerfile, Debian's podman runs the image. No base image is pulled:
# debootstrap makes a stand-in for it, with Debian's own Python 3.11 in the place of the official image's.
#
#     deploy/docker/try-without-docker.sh MODELS      # a folder with bundles
#
# Needs root, a mirror of Debian, a package index, and
#     apt-get install --no-install-recommends buildah podman runc debootstrap
#
# WORK keeps the stand-in between runs (default: a temporary folder). MEMORY and CPUS limit the container, SECCOMP is a
# profile of system calls in the place of podman's.

set -euo pipefail
models=$(realpath "${1:?give a folder with bundles}")
cd "$(dirname "$0")/../.."
WORK=${WORK:-$(mktemp -d)}
MEMORY=${MEMORY:-512m}
CPUS=${CPUS:-1}
PORT=${PORT:-8000}
dockerfile=deploy/docker/Dockerfile.serve
image=localhost/sparsebert-serve
certificates=/etc/ssl/certs/ca-certificates.crt  # of this machine: its network may have a proxy
base=docker.io/library/$(sed -n 's/^FROM \([^ ]*\).*/\1/p' "$dockerfile" | tail -1)
container=

say() { echo "--- $*"; }
end() { if [[ -n $container ]]; then podman rm --force --time 0 "$container" >/dev/null; fi; }
trap end EXIT

# --- The stand-in for the base image. -------------------------------------------------------------------------------
if ! podman image exists "$base"; then
    say "making a stand-in for $base"
    root=$WORK/base
    if [[ ! -e $root/etc/debian_version ]]; then
        debootstrap --variant=minbase --include=python3,python3-venv,python3-pip,ca-certificates bookworm "$root"
    fi
    for name in python python3; do ln -sf /usr/bin/python3 "$root/usr/local/bin/$name"; done
    tar --create --directory "$root" --exclude=./var/cache/apt/archives --exclude=./var/lib/apt/lists . |
        podman import --change "CMD python3" - "$base"
fi

# --- Build: every instruction of the Dockerfile. --------------------------------------------------------------------
say "building $image from $dockerfile"
buildah build --layers --runtime runc --format docker --pull-never --network host --volume "$certificates:$certificates:ro" \
    --file "$dockerfile" --tag "$image" .
podman image inspect --format 'user {{.User}}, entry point {{.Config.Entrypoint}}, signal {{.Config.StopSignal}}' "$image"
size_of() { podman image inspect --format '{{.Size}}' "$1"; }
say "size: $(($(size_of "$image") / 1000000)) MB, of which the stand-in's $(($(size_of "$base") / 1000000)) MB"

# --- Run: read-only root, no capabilities, no new privileges, limits, models read-only. -----------------------------
ask() {
    python3 - "http://127.0.0.1:$PORT$1" "${2:-}" <<'PYTHON'
import sys, urllib.request
url, body = sys.argv[1:]
with urllib.request.urlopen(url, body.encode() or None, timeout=30) as answer:
    print(answer.status, answer.read(400).decode())
PYTHON
}

say "running it with $CPUS CPUs and $MEMORY"
container=$(podman --runtime runc run --detach --no-healthcheck --network=host \
    --read-only --cap-drop=all --security-opt=no-new-privileges ${SECCOMP:+--security-opt="seccomp=$SECCOMP"} \
    --tmpfs /tmp:size=16m --ulimit=nofile=1024:1024 --ulimit=nproc=1024:1024 --pids-limit=256 \
    --memory="$MEMORY" --memory-swap="$MEMORY" --cpus="$CPUS" \
    --volume "$models:/models:ro" --env "SPARSEBERT_PORT=$PORT" --env "SPARSEBERT_HOST=127.0.0.1" "$image")
for _ in $(seq 240); do
    if ask /readyz 2>/dev/null; then break; fi
    if [[ $(podman inspect --format '{{.State.Running}}' "$container") != true ]]; then break; fi
    sleep 0.5
done
podman logs "$container"
ask /readyz
ask /v1/predict '{"inputs": ["a gripping film", "dull and far too long"]}'
say "the image's own health check (podman's timer for it needs systemd)"
podman image inspect --format '{{json .HealthCheck.Test}}' "$image" |
    python3 -c 'import json, sys; print("\0".join(json.load(sys.stdin)[1:]), end="")' |
    xargs -0 podman exec "$container" && echo healthy

say "who it is and what it may do"
podman exec --interactive "$container" python - <<'PYTHON'
import os, pathlib
status = dict(line.split(":\t", 1) for line in pathlib.Path("/proc/1/status").read_text().splitlines() if ":\t" in line)
print("uid", status["Uid"].split()[0], "gid", status["Gid"].split()[0], "capabilities", status["CapEff"],
      "no new privileges", status["NoNewPrivs"], "resident", status["VmRSS"].strip())
for folder in ("/", "/app", "/models", "/opt/venv"):
    try:
        pathlib.Path(folder, "x").write_text("")
    except OSError as error:
        print(error)
    else:
        raise SystemExit(f"{folder} can be written")
PYTHON

say "stopping it: SIGTERM"
began=$(date +%s%N)
podman stop --time 20 "$container" >/dev/null
code=$(podman inspect --format '{{.State.ExitCode}}' "$container")
podman logs "$container" 2>&1 | tail -2
echo "exit code $code after $((($(date +%s%N) - began) / 1000000)) ms"
[[ $code == 0 ]]
