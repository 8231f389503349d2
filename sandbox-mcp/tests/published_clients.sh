#!/bin/sh
# Runs published clients of the Model Context Protocol, unchanged, against `sandbox mcp`: the Python
# SDK, LangChain's adapters, the OpenAI Agents SDK, the Inspector's command line, Claude Code, and the
# protocol's conformance suite.
# usage: published_clients.sh SANDBOX-PROGRAM
# They are installed from PyPI and npm, side by side; exit code 77 if they can't be.
set -eu
program=$(realpath "$1")
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
pids=
trap 'for pid in $pids; do kill "$pid" 2>/dev/null || :; done; wait; rm -rf "$work"' EXIT
cd "$work"
mkdir out npm home

{
  python3 -m venv venv &&
    venv/bin/pip install -q --disable-pip-version-check mcp langchain-mcp-adapters openai-agents
} >pip.log 2>&1 &
python=$!
# The Inspector needs Node 22, which npm has too.
npm install --silent --no-fund --no-audit --prefix npm \
  node@22 @modelcontextprotocol/inspector@2 @modelcontextprotocol/conformance@0.1.16 \
  @anthropic-ai/claude-code >npm.log 2>&1 &
node=$!
missing=
wait "$python" || missing=PyPI
wait "$node" || missing="$missing npm"
if [ -n "$missing" ]; then
  tail -n 3 pip.log npm.log >&2
  echo "NOT RUN: clients could not be installed from $missing" >&2
  exit 77
fi

timeout 300 venv/bin/python "$here/published_clients.py" "$program" "$work/out"

PATH=$work/npm/node_modules/.bin:$PATH
export PATH
inspect() {
  timeout 60 mcp-inspector --cli "$program" mcp "$@"
}
inspect --method tools/list >listed
grep -q '"sandbox_create"' listed
inspect --method tools/call --tool-name sandbox_create --tool-arg name=inspected >called
grep -q '"inspected"' called
echo "ok: the Inspector's command line"

# What the conformance suite asks of every server; the rest of it wants tools, prompts and resources of
# its own names. It sends no token, which is put in on the way.
echo 0123456789abcdef >token
: >server.log
python3 "$here/authorized.py" server.log 0123456789abcdef >port &
pids="$pids $!"
until [ -s port ]; do sleep 0.1; done
port=$(cat port)
"$program" mcp --listen 127.0.0.1:0 --token-file token --allow-origin "http://127.0.0.1:$port" \
  --allow-origin "http://localhost:$port" 2>server.log &
pids="$pids $!"
for scenario in server-initialize ping tools-list server-sse-multiple-streams dns-rebinding-protection; do
  timeout 120 conformance server --url "http://127.0.0.1:$port/mcp" --scenario "$scenario" >conformance 2>&1 || {
    cat conformance >&2
    exit 1
  }
done
echo "ok: the conformance suite"

# Connects without a model and without an account.
HOME=$work/home claude mcp add sandbox -- "$program" mcp >/dev/null
HOME=$work/home timeout 60 claude mcp list >claude
grep -i 'sandbox.*connected' claude || {
  cat claude >&2
  exit 1
}
