#!/usr/bin/env bash
# Builds `sandbox-agent` as one static program, as the Dockerfile does, and runs a part of the
# conformance kit against it as a tenant's app of the emulator. By hand: it builds everything anew.
#
#   sandbox-agent/tests/static.sh [PROFILE]     (release by default)
#
# Needs musl-gcc (Debian: musl-tools), for the C of ring.
set -euo pipefail
cd "$(dirname "$0")/../.."

readonly target=x86_64-unknown-linux-musl
profile=${1:-release}
cargo=${CARGO:-cargo}

type -P musl-gcc >/dev/null || {
    echo "musl-gcc is missing: apt-get install musl-tools" >&2
    exit 1
}
rustup target add "$target"
"$cargo" build -p sandbox-agent --target "$target" --profile "$profile"

place=${CARGO_TARGET_DIR:-target}/$target/${profile/#dev/debug}
program=$(realpath "$place/sandbox-agent")
# A dynamic program names its loader.
if readelf --program-headers "$program" | grep -q INTERP; then
    echo "$program is not static" >&2
    exit 1
fi
ls -l "$program"

SANDBOX_AGENT_PROGRAM=$program "$cargo" test -p sandbox-agent --all-features --test placements
