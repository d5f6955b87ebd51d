#!/bin/sh
# Makes the demo's bundles where there are none: `make models` in the training image, with volumes for what it writes.
# Bundles that are there are left alone, also somebody's own; what was begun here and interrupted is finished.

set -eu
MODELS=${MODELS:-/models}
RUNS=${RUNS:-/runs}
VENV=${VENV:-/opt/venv}
begun=$MODELS/.demo-begun  # the service passes over names with a dot

if [ ! -e "$begun" ]; then
    for manifest in "$MODELS"/*/*/manifest.json; do
        if [ -e "$manifest" ]; then
            echo "$MODELS has bundles: nothing to make"
            exit 0
        fi
    done
    if ! touch "$begun"; then
        echo "the user $(id -u) cannot write into $MODELS: put bundles there, or give the folder to that user" >&2
        exit 1
    fi
fi
echo "making the demo's bundles: this trains and prunes a small model, some minutes on two cores"
make models VENV="$VENV" RUN="$RUNS/demo" MODELS="$MODELS"
rm "$begun"
