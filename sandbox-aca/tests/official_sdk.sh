#!/usr/bin/env bash
# Runs the official Python SDK of Azure Container Apps Sandboxes against the emulator, unchanged.
#
#   sandbox-aca/tests/official_sdk.sh [EMULATOR-PROGRAM [VIRTUAL-ENVIRONMENT]]
#
# Without a program it is built; without a virtual environment one is made and the SDK is installed
# from PyPI. Exit code 77: it could not be installed.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

readonly sdk=azure-containerapps-sandbox==0.1.0b4
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

venv=${2:-}
if [[ -z $venv ]]; then
    venv=$work/venv
    if ! { python3 -m venv "$venv" &&
        "$venv/bin/pip" install --quiet --disable-pip-version-check "$sdk"; } \
        >"$work/install" 2>&1; then
        tail -3 "$work/install" >&2
        echo "NOT RUN: $sdk could not be installed from PyPI" >&2
        exit 77
    fi
fi

emulator=${1:-}
if [[ -z $emulator ]]; then
    emulator=$(cargo build --quiet --manifest-path "$here/../../Cargo.toml" \
        --package sandbox-testkit --features aca-emulator \
        --bin aca-emulator --message-format=json |
        sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -1)
fi

# A proxy of this machine is none for 127.0.0.1.
if ! NO_PROXY='*' timeout 300 "$emulator" --tls --log "$work/log" -- \
    "$venv/bin/python" "$here/official_sdk.py"; then
    echo "the last requests that the emulator answered:" >&2
    tail -5 "$work/log" >&2
    exit 1
fi
