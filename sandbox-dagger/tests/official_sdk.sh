#!/bin/sh
# Runs Dagger's own Python SDK against the engine double: the double must give an official client
# the answers that it expects. Needs python3 and a package index; says so and fails without them.
#
#   sandbox-dagger/tests/official_sdk.sh [PROGRAM]
#
# PROGRAM is the double (default: it is built); DAGGER_PYTHON a Python that has dagger-io already.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
version=0.21.11

double=${1:-}
if [ -z "$double" ]; then
    cd "$here/../.."
    cargo build --quiet -p sandbox-testkit --features dagger-double --bin dagger-double
    double=${CARGO_TARGET_DIR:-target}/debug/dagger-double
fi
double=$(cd "$(dirname "$double")" && pwd)/$(basename "$double")

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python=${DAGGER_PYTHON:-}
if [ -z "$python" ]; then
    python3 -m venv "$work/venv"
    python=$work/venv/bin/python
    "$python" -m pip install --quiet "dagger-io==$version" || {
        echo "official_sdk.sh: NOT RUN: dagger-io $version can't be installed from PyPI" >&2
        exit 1
    }
fi
cd "$work"
unset DAGGER_SESSION_PORT DAGGER_SESSION_TOKEN
_EXPERIMENTAL_DAGGER_CLI_BIN=$double \
    timeout 300 "$python" "$here/official_sdk.py"
