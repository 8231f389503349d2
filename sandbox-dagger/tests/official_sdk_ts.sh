#!/bin/sh
# Runs Dagger's own TypeScript SDK against the engine double, which must give an official client the
# answers that it expects. Says so and ends with 77 if the SDK can't be installed.
#
#   sandbox-dagger/tests/official_sdk_ts.sh DOUBLE
#
# DOUBLE is the program; DAGGER_NODE a directory whose node_modules has @dagger.io/dagger already.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
sdk=@dagger.io/dagger@0.21.9

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if [ -n "${DAGGER_NODE:-}" ]; then
    ln -s "$DAGGER_NODE/node_modules" "$work/node_modules"
elif ! (cd "$work" && timeout 300 npm install --silent --no-audit --no-fund "$sdk") >"$work/log" 2>&1; then
    tail -n 3 "$work/log" >&2
    echo "NOT RUN: $sdk could not be installed from npm" >&2
    exit 77
fi

double=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
unset DAGGER_SESSION_PORT DAGGER_SESSION_TOKEN
# An import is looked for from where the program lies.
cp "$here/official_sdk.mjs" "$work/"
mkdir "$work/run"
cd "$work/run"
_EXPERIMENTAL_DAGGER_CLI_BIN=$double timeout 300 node ../official_sdk.mjs
