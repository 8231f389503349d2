#!/bin/sh
# Runs published clients of the Model Context Protocol, unchanged, against the server.
# usage: published_clients.sh SANDBOX-MCP-PROGRAM [VIRTUAL-ENVIRONMENT]
# Without a virtual environment one is made and the clients are installed from PyPI, which takes a
# minute; exit code 77 if they can't be. The Inspector's command line comes from npm and is left out
# with a note where that, or Node 22, is not there.
set -eu
program=$1
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
venv=${2:-}
if [ -z "$venv" ]; then
  venv=$work/venv
  python3 -m venv "$venv" || exit 77
  "$venv/bin/pip" install -q mcp langchain-mcp-adapters openai-agents || {
    echo "NOT RUN: the clients could not be installed from PyPI" >&2
    exit 77
  }
fi
cd "$work"
mkdir out
timeout 300 "$venv/bin/python" "$here/published_clients.py" "$program" "$work/out"
if [ "$(node --version 2>/dev/null | sed 's/v\([0-9]*\).*/\1/')" -ge 22 ] 2>/dev/null; then
  listed=$(npx --yes @modelcontextprotocol/inspector@2 --cli "$program" stdio --method tools/list)
  printf %s "$listed" | grep -q '"sandbox_create"'
  echo "ok: Inspector's command line"
else
  echo "NOT RUN: the Inspector's command line, which needs Node 22" >&2
fi
