#!/bin/sh
# Runs Dagger's own Go SDK against the engine double, which must give an official client the answers
# that it expects. Says so and ends with 77 if the SDK can't be had, or if this machine's Go is too
# old for it.
#
#   sandbox-dagger/tests/official_sdk_go.sh DOUBLE
#
# DOUBLE is the program. Building the SDK takes most of a minute of a processor.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
sdk=dagger.io/dagger@v0.21.9
double=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/sdk" "$work/run"
cp "$here/official_sdk.go" "$work/sdk/main.go"
if ! (cd "$work/sdk" && go mod init sdk && timeout 300 go get "$sdk") >"$work/log" 2>&1; then
    tail -n 3 "$work/log" >&2
    echo "NOT RUN: $sdk could not be had from the module proxy" >&2
    exit 77
fi
(cd "$work/sdk" && go build -o "$work/program" .)
unset DAGGER_SESSION_PORT DAGGER_SESSION_TOKEN
cd "$work/run"
_EXPERIMENTAL_DAGGER_CLI_BIN=$double timeout 300 "$work/program"
