#!/usr/bin/env bash
# Runs the example against doubles of Azure and Dagger, on this machine alone:
#
#   examples/build_push_deploy/with_doubles.sh
#
# They run real commands in local sandboxes, push to a real registry (Debian's docker-registry) and
# pull from it. With a directory as the first argument, the programs that were built there are used.
set -euo pipefail
cd "$(dirname "$0")/../.."

built=${1:-}
if [[ -z $built ]]; then
    cargo build --workspace --all-features --bins --example build_push_deploy
    built=$(cargo metadata --format-version 1 --no-deps |
        sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')/debug
fi
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
# Without what only debuggers read it is a tenth of its size.
strip -o "$place/sandbox-agent" "$built/sandbox-agent"
SANDBOX_AGENT=$place/sandbox-agent _EXPERIMENTAL_DAGGER_CLI_BIN=$built/dagger-double \
    "$built/aca-emulator" --tls --registry --log "$place/emulator.log" \
    -- "$built/examples/build_push_deploy" | tee "$place/said"
