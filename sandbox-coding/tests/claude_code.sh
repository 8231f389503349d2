#!/bin/sh
# Drives Claude Code, as npm has it, through a session against a model that is a script.
# usage: claude_code.sh TEST-PROGRAM (of tests/local.rs) [DIRECTORY in which it is installed]
# Exit code 77 if it can't be had from npm.
set -eu
program=$1
work=$(mktemp -d /var/tmp/sandbox-claude.XXXXXX)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
place=${2:-}
if [ -z "$place" ]; then
  place=$work
  npm install --silent --no-fund --no-audit --prefix "$place" @anthropic-ai/claude-code || {
    echo "NOT RUN: Claude Code could not be installed from npm" >&2
    exit 77
  }
  chmod -R go+rX "$place"
fi
SANDBOX_CLAUDE=$place timeout 300 "$program" --ignored --nocapture claude_code
