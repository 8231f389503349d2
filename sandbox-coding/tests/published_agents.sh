#!/bin/sh
# Drives coding agents, as npm and PyPI have them, through a session against a model that is a script.
# usage: published_agents.sh TEST-PROGRAM (of tests/local.rs) [AGENT…]
# Default: those that are quick to install (claude, codex, gemini); `opencode` and `aider` by name.
# With SANDBOX_AGENTS, a directory, what is there already is not installed again. Exit code 77 if one
# can't be had.
set -eu
program=$1
shift
[ $# -gt 0 ] || set -- claude codex gemini
work=$(mktemp -d /var/tmp/sandbox-agents.XXXXXX)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
place=${SANDBOX_AGENTS:-$work}

from_npm() {
  npm install --silent --no-fund --no-audit --prefix "$place/$1" "$2"
}
install() {
  case $1 in
    claude) from_npm claude @anthropic-ai/claude-code ;;
    codex) from_npm codex @openai/codex ;;
    gemini) from_npm gemini @google/gemini-cli ;;
    opencode) from_npm opencode opencode-ai ;;
    # The system's: another manager's is not in the sandbox.
    aider) /usr/bin/python3 -m venv "$place/aider" &&
      "$place/aider/bin/pip" install -q --disable-pip-version-check aider-chat ;;
    *) echo "no agent $1 is known here" >&2 && exit 2 ;;
  esac
}

for agent; do
  [ -e "$place/$agent" ] || install "$agent" || {
    echo "NOT RUN: $agent could not be installed" >&2
    exit 77
  }
  chmod -R go+rX "$place/$agent"
done
for agent; do
  SANDBOX_AGENTS=$place timeout 300 "$program" --ignored --exact --nocapture "published::$agent"
done
