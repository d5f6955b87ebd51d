#!/bin/sh
# Starts Grafana with a password for `admin` that nobody else knows: that of the secret's file when one was given, else
# a random one, made at the first start and kept beside Grafana's data. Grafana takes it over when it makes its
# database; to change it later: docker compose exec grafana grafana cli admin reset-admin-password NEW

set -eu
given=${GIVEN:-/run/secrets/grafana-admin-password}
own=${GF_PATHS_DATA:-/var/lib/grafana}/admin-password

if [ -s "$given" ]; then
    # Grafana would take an empty password instead, and start as admin/admin.
    if [ ! -r "$given" ]; then
        echo "the file with Grafana's password is not readable to user $(id -u), group $(id -g), as which Grafana runs:" \
            "on the host, sudo chgrp $(id -g) and chmod g+r the file of GRAFANA_ADMIN_PASSWORD_FILE" >&2
        exit 1
    fi
    password=$given
else
    password=$own
    if [ ! -s "$own" ]; then
        (umask 077 && head -c 24 /dev/urandom | base64 | tr -d '\n' >"$own.new" && mv "$own.new" "$own")
    fi
    echo "the password of Grafana's user admin: docker compose exec grafana cat $own"
fi
export GF_SECURITY_ADMIN_PASSWORD__FILE="$password"
exec "${RUN:-/run.sh}" "$@"
