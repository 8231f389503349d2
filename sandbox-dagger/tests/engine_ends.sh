#!/bin/sh
# Kills, stops, fills and restarts a real engine under commands that run, and checks what they are
# told. One after the other: each ends the engine for all.
#
#   SANDBOX_DAGGER_STOP    a program that ends the engine with the signal of its argument (KILL, TERM)
#   SANDBOX_DAGGER_START   a program that starts it and returns when it answers
#   SANDBOX_DAGGER_FILL    more MiB than its store has; unset: it is not filled
#   SANDBOX_DAGGER_IMAGE   an image, where the engine can't pull the default
set -eu
: "${SANDBOX_DAGGER_STOP:?names the program that ends the engine}"
: "${SANDBOX_DAGGER_START:?names the program that starts it}"
cd "$(dirname "$0")/.."
SANDBOX_REQUIRE=dagger exec cargo test -p sandbox-dagger --test engine -- ends:: --test-threads 1
