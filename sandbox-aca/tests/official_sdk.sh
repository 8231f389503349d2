#!/bin/sh
# Runs the official Python SDK against the emulator.
# usage: official_sdk.sh EMULATOR-PROGRAM [VIRTUAL-ENVIRONMENT]
# Without a virtual environment one is made and the SDK is installed from PyPI.
set -eu
emulator=$1
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
pid=
trap 'if [ "$pid" ]; then kill "$pid" 2> /dev/null || :; fi; rm -rf "$work"' EXIT
venv=${2:-}
if [ -z "$venv" ]; then
  venv=$work/venv
  python3 -m venv "$venv"
  "$venv/bin/pip" install -q 'azure-containerapps-sandbox==0.1.0b4'
fi
"$emulator" --tls --log > "$work/told" 2> "$work/log" &
pid=$!
i=0
while ! [ -s "$work/told" ] && [ $i -lt 100 ]; do sleep 0.1; i=$((i + 1)); done
AZURE_TEST_EMULATOR=$(cat "$work/told")
REQUESTS_CA_BUNDLE=$(printf %s "$AZURE_TEST_EMULATOR" | "$venv/bin/python" -c 'import json,sys; print(json.load(sys.stdin)["caFile"])')
SSL_CERT_FILE=$REQUESTS_CA_BUNDLE
export AZURE_TEST_EMULATOR REQUESTS_CA_BUNDLE SSL_CERT_FILE
timeout 120 "$venv/bin/python" "$here/official_sdk.py" || { tail -n 20 "$work/log"; exit 1; }
