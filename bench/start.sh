#!/bin/sh
# Starts the release build for the side-by-side benchmark: start.sh FOLDER BASE_PORT [OPTION]... The process stays the
# same one, so that its CPU time is the server's. EDGEWEIR names another binary, to compare two of them.
set -eu
folder=$1
port=$2
shift 2
exec "${EDGEWEIR:-$(dirname "$0")/../target/release/edgeweir}" serve --data-dir "$folder/edgeweir-$port" \
  --set "listen.http=127.0.0.1:$port" --set "listen.https=127.0.0.1:$((port + 1))" \
  --set "listen.api=127.0.0.1:$((port + 2))" --set "listen.admin=127.0.0.1:$((port + 3))" \
  --set origins.allow_private=true --set keys.pool=0 --set log.filter=warn "$@"
