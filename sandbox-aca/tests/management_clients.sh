#!/bin/sh
# Runs Microsoft's own management clients, unchanged, against the emulator's management plane:
# azure-mgmt-appcontainers, azure-mgmt-authorization and azure-mgmt-containerregistry, and the command
# line `az` if AZ=1.
# usage: management_clients.sh EMULATOR-PROGRAM [VIRTUAL-ENVIRONMENT]
# Without a virtual environment one is made and the clients are installed from PyPI; exit code 77 if
# they can't be. With AZ=1 that is 900 MB, and takes minutes.
set -eu
emulator=$1
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
pid=
trap '[ -z "$pid" ] || kill "$pid" 2> /dev/null || :; rm -rf "$work"' EXIT
venv=${2:-}
if [ -z "$venv" ]; then
  venv=$work/venv
  python3 -m venv "$venv" || exit 77
  set -- 'azure-mgmt-appcontainers==5.1.0' 'azure-mgmt-authorization==4.0.0' \
    'azure-mgmt-containerregistry==15.0.0'
  [ "${AZ:-}" != 1 ] || set -- 'azure-cli==2.91.0'
  "$venv/bin/pip" install -q "$@" || {
    echo "NOT RUN: the clients could not be installed from PyPI" >&2
    exit 77
  }
fi
"$emulator" --tls --log "$work/log" > "$work/said" 2> "$work/err" &
pid=$!
i=0
while ! [ -s "$work/said" ] && [ $i -lt 100 ]; do sleep 0.1; i=$((i + 1)); done
TLS_EMULATOR=$(cat "$work/said")
field() { printf %s "$TLS_EMULATOR" | "$venv/bin/python" -c "import json,sys; print(json.load(sys.stdin)['$1'])"; }
REQUESTS_CA_BUNDLE=$(field caFile)
export TLS_EMULATOR REQUESTS_CA_BUNDLE
cd "$work"
if [ "${AZ:-}" != 1 ]; then
  timeout 300 "$venv/bin/python" "$here/management_clients.py" || { tail -n 40 "$work/log" "$work/err"; exit 1; }
  exit
fi
HOME=$work AZURE_CONFIG_DIR=$work/azure AZURE_CORE_INSTANCE_DISCOVERY=false AZURE_CORE_COLLECT_TELEMETRY=false
AZURE_CORE_ONLY_SHOW_ERRORS=true AZURE_EXTENSION_USE_DYNAMIC_INSTALL=no
ENDPOINT=$(field endpoint)
export HOME AZURE_CONFIG_DIR AZURE_CORE_INSTANCE_DISCOVERY AZURE_CORE_COLLECT_TELEMETRY ENDPOINT
export AZURE_CORE_ONLY_SHOW_ERRORS AZURE_EXTENSION_USE_DYNAMIC_INSTALL
PATH=$venv/bin:$PATH timeout 900 sh "$here/management_az.sh" || { tail -n 40 "$work/log" "$work/err"; exit 1; }
