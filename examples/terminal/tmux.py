"""Works in a sandbox's shell as a user in tmux does: keys, the window's size, Ctrl-C, the end.

usage: tmux.py PROGRAM

Needs a `tmux` and nothing but Python's own library."""
import os
import shutil
import subprocess
import sys
import tempfile
import time

# Shorter than the sleep that Ctrl-C has to end.
PATIENCE = 60

if not shutil.which("tmux"):
    raise SystemExit("there is no tmux")
place = tempfile.mkdtemp(prefix="sandbox-tmux-")


def tmux(*words):
    # A server of its own, without its user's configuration.
    return subprocess.run(["tmux", "-S", f"{place}/socket", "-f", "/dev/null", *words],
                          check=True, stdout=subprocess.PIPE, text=True).stdout


def until(what, look, wanted):
    end = time.monotonic() + PATIENCE
    while wanted not in (seen := look()):
        if time.monotonic() > end:
            raise SystemExit(f"never: {what}; no {wanted!r} in {seen!r}")
        time.sleep(0.05)
    print("ok:", what)


def lines():
    return tmux("capture-pane", "-p", "-t", "shell").splitlines()


def enter(line):
    tmux("send-keys", "-t", "shell", "-l", line)
    tmux("send-keys", "-t", "shell", "Enter")


try:
    # What comes after the program tells its end, and whether the terminal is as it was: `icanon`, not `-icanon`.
    tmux("new-session", "-d", "-s", "shell", "-x", "100", "-y", "30", "sh", "-c",
         '"$0"; echo "ended: $?"; stty -a | tr " ;" "\\n\\n" | grep -x icanon; exec sleep 600',
         os.path.abspath(sys.argv[1]))
    until("the shell shows its prompt", lines, "$")
    enter("echo $((6*7))")
    until("keys reach the shell, and its answer the window", lines, "42")
    enter("stty size")
    until("the terminal has the window's size", lines, "30 100")
    tmux("resize-window", "-t", "shell", "-x", "120", "-y", "40")
    # The shell looks until it sees the size: the window's change arrives when it arrives.
    enter("until stty size | grep '^40 120$'; do sleep 0.1; done")
    until("the size follows the window", lines, "40 120")
    enter("""sh -c 'echo work""ing; exec sleep 100'""")
    until("a long command runs", lines, "working")
    tmux("send-keys", "-t", "shell", "C-c")
    enter("echo status $?")
    until("Ctrl-C ends it, and not the shell", lines, "status 130")
    enter("exit 3")
    until("the shell's end is the program's", lines, "ended: 3")
    until("the terminal is as it was", lines, "icanon")
finally:
    subprocess.run(["tmux", "-S", f"{place}/socket", "kill-server"], stderr=subprocess.DEVNULL, check=False)
    shutil.rmtree(place, ignore_errors=True)
