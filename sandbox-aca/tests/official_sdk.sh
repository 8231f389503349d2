#!/usr/bin/env bash
# Runs the official Python SDK of Azure Container Apps Sandboxes against the emulator, unchanged.
#
#   sandbox-aca/tests/official_sdk.sh
#
# It needs python3 with venv and PyPI, or a Python that has the SDK: ACA_SDK_PYTHON. The emulator is
# built unless ACA_EMULATOR_PROGRAM names one. Exit code 77: the SDK could not be installed.
set -euo pipefail
cd "$(dirname "$0")/../.."

readonly sdk=azure-containerapps-sandbox==0.1.0b4
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python=${ACA_SDK_PYTHON:-}
if [[ -z $python ]]; then
    if ! { python3 -m venv "$work/venv" && "$work/venv/bin/pip" install --quiet \
        --disable-pip-version-check "$sdk"; } >"$work/install" 2>&1; then
        tail -3 "$work/install" >&2
        echo "NOT RUN: $sdk could not be installed from PyPI" >&2
        exit 77
    fi
    python=$work/venv/bin/python
fi

program=${ACA_EMULATOR_PROGRAM:-}
if [[ -z $program ]]; then
    program=$(cargo build --quiet --package sandbox-testkit --features aca-emulator \
        --bin aca-emulator --message-format=json |
        sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -1)
fi

# A proxy of this machine is none for 127.0.0.1.
if ! NO_PROXY='*' timeout 300 "$program" --tls --log "$work/log" -- \
    "$python" sandbox-aca/tests/official_sdk.py; then
    echo "the last requests that the emulator answered:" >&2
    tail -5 "$work/log" >&2
    exit 1
fi
