#!/bin/sh
# Runs Dagger's own Python SDK against the engine double, which must give an official client the
# answers that it expects; and, if SANDBOX_REQUIRE names dagger, against the engine of the
# environment, whose answers must be the same. Says so and ends with 77 if the SDK can't be installed.
#
#   sandbox-dagger/tests/official_sdk.sh [DOUBLE]
#
# DOUBLE is the program (default: it is built); DAGGER_PYTHON a Python that has dagger-io already. For
# the engine: SANDBOX_DAGGER_IMAGE, SANDBOX_DAGGER_REGISTRY and SANDBOX_DAGGER_LOGIN as in
# tests/engine/main.rs.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
sdk=dagger-io==0.21.11

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python=${DAGGER_PYTHON:-}
if [ -z "$python" ]; then
    python=$work/venv/bin/python
    if ! { python3 -m venv "$work/venv" &&
        "$python" -m pip install --quiet --disable-pip-version-check "$sdk"; } >"$work/log" 2>&1; then
        tail -n 3 "$work/log" >&2
        echo "NOT RUN: $sdk could not be installed from PyPI" >&2
        exit 77
    fi
fi

double=${1:-}
if [ -z "$double" ]; then
    double=$(cargo build --quiet --manifest-path "$here/../../Cargo.toml" -p sandbox-testkit \
        --features dagger-double --bin dagger-double --message-format=json |
        sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
fi
double=$(cd "$(dirname "$double")" && pwd)/$(basename "$double")
unset DAGGER_SESSION_PORT DAGGER_SESSION_TOKEN

# ask NAME CLI: what the SDK is told, in a directory of its own.
ask() {
    mkdir "$work/$1"
    (cd "$work/$1" && _EXPERIMENTAL_DAGGER_CLI_BIN=$2 timeout 300 "$python" "$here/official_sdk.py") \
        >"$work/$1.said" || { cat "$work/$1.said"; return 1; }
    cat "$work/$1.said"
}

SANDBOX_DAGGER_IMAGE=${SANDBOX_DAGGER_IMAGE:-alpine:3.22}
export SANDBOX_DAGGER_IMAGE
case ",${SANDBOX_REQUIRE:-}," in
*,dagger,* | *,all,*)
    ask double "$double"
    ask engine "${_EXPERIMENTAL_DAGGER_CLI_BIN:-$(command -v dagger)}"
    diff "$work/double.said" "$work/engine.said" && echo "the engine gave the same answers"
    ;;
*)
    SANDBOX_DAGGER_REGISTRY=${SANDBOX_DAGGER_REGISTRY:-registry.test/sdk} ask double "$double"
    ;;
esac
