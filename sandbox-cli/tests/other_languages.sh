#!/bin/sh
# Runs the programs of docs/guides/python.md and typescript.md, as they stand there, against
# `sandbox serve`, through a proxy that loses the first answer to each call: what a call appends to a
# file stands there once. usage: other_languages.sh SANDBOX-PROGRAM
# The TypeScript one needs tsx and the compiler from npm; exit code 77 if they can't be had.
set -eu
program=$(realpath "$1")
tests=$(cd "$(dirname "$0")" && pwd)
guides=$(cd "$tests/../../docs/guides" && pwd)
work=$(mktemp -d)
started=
trap 'test -z "$started" || kill $started; wait; rm -rf "$work"' EXIT
cd "$work"
mkfifo said
(umask 077 && head -c 32 /dev/urandom | base64 >token)
env -u SANDBOX_PROVIDER "$program" serve --listen 127.0.0.1:0 --token-file token >said &
started=$!
read -r uri <said
python3 "$tests/losing_proxy.py" "${uri#remote:http://}" >said &
started="$started $!"
read -r SANDBOX_URL <said
SANDBOX_TOKEN=$(cat token)
export SANDBOX_URL SANDBOX_TOKEN

program_of() { # guide, language
  sed -n "/^\`\`\`$2\$/,/^\`\`\`\$/p" "$guides/$1" | sed '1d;$d'
}

expected() {
  diff - "$1" || {
    echo "$1 says something else" >&2
    exit 1
  }
}

program_of python.md python >example.py
python3 example.py >python.out
expected python.out <<'END'
{'code': 0} b'42\n'
b'done\n'
command-not-found not-started
END
echo "ok: Python"

npm install --silent --no-fund --no-audit tsx typescript @types/node >npm.log 2>&1 || {
  cat npm.log >&2
  echo "NOT RUN: the TypeScript compiler could not be installed from npm" >&2
  exit 77
}
program_of typescript.md typescript >example.ts
npx tsc --noEmit --strict --target es2022 --module nodenext --types node example.ts
npx tsx example.ts >typescript.out
expected typescript.out <<'END'
{"code":0} "42\n"
"done\n"
command-not-found not-started
END
echo "ok: TypeScript"
