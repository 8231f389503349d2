#!/bin/sh
# Runs published clients of dynamic sessions, unchanged, against the emulator.
# usage: published_clients.sh EMULATOR-PROGRAM [VIRTUAL-ENVIRONMENT]
# Without a virtual environment one is made and the clients are installed from PyPI; exit code 77 if
# they can't be.
set -eu
emulator=$1
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
# By files: what starts one is a shell of its own.
trap 'for file in "$work"/*.pid; do kill "$(cat "$file")" 2> /dev/null || :; done; rm -rf "$work"' EXIT
venv=${2:-}
if [ -z "$venv" ]; then
  venv=$work/venv
  python3 -m venv "$venv" || exit 77
  "$venv/bin/pip" install -q 'langchain-azure-dynamic-sessions==1.0.4' 'semantic-kernel==1.45.0' \
    'autogen-ext[azure]==0.7.5' 'llama-index-tools-azure-code-interpreter==0.7.0' || {
    echo "NOT RUN: the clients could not be installed from PyPI" >&2
    exit 77
  }
fi
start() { # start NAME [OPTION]...
  name=$1
  shift
  "$emulator" "$@" --log "$work/$name.log" > "$work/$name" 2> "$work/$name.err" &
  echo $! > "$work/$name.pid"
  i=0
  while ! [ -s "$work/$name" ] && [ $i -lt 100 ]; do sleep 0.1; i=$((i + 1)); done
  cat "$work/$name"
}
# LangChain's tools take http, Semantic Kernel's insists on https.
PLAIN_EMULATOR=$(start plain)
TLS_EMULATOR=$(start tls --tls)
SSL_CERT_FILE=$(printf %s "$TLS_EMULATOR" | "$venv/bin/python" -c 'import json,sys; print(json.load(sys.stdin)["caFile"])')
REQUESTS_CA_BUNDLE=$SSL_CERT_FILE
export PLAIN_EMULATOR TLS_EMULATOR SSL_CERT_FILE REQUESTS_CA_BUNDLE
cd "$work"
timeout 300 "$venv/bin/python" "$here/published_clients.py" || { tail -n 20 ./*.log ./*.err; exit 1; }
