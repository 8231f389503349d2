"""Works in the page's shell as a user does: keys, the window's size, Ctrl-C, two pages, the end.

usage: page.py PROGRAM

Needs a `chromium` and nothing but Python's own library."""
import os
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from browser import Browser  # noqa: E402

LINES = "document.querySelector('#screen').textContent.split('\\n').map((line) => line.trim())"
SAID = "document.querySelector('#said').textContent"


def has(line):
    return f"{LINES}.includes({line!r})"


def enter(line):
    browser.type(line)
    browser.key("Enter", "\r")


server = subprocess.Popen([sys.argv[1], "--web"], stdout=subprocess.PIPE, text=True)
profile = tempfile.mkdtemp(prefix="sandbox-page-")
browser = None
try:
    address = server.stdout.readline().strip()
    browser = Browser(profile)
    browser.open(address.split("#")[0] + "#wrong")
    browser.until("a page without the token gets no shell", SAID, "There is no shell: is the address whole?")
    browser.open("about:blank")
    browser.open(address)
    browser.until("the shell shows its prompt", f"{LINES}.at(-1)", "$")
    enter("echo $((6*7))")
    browser.until("keys reach the shell, and its answer the page", has("42"), True)
    browser.ask("Emulation.setDeviceMetricsOverride", width=700, height=300, deviceScaleFactor=1, mobile=False)
    wide = browser.value("Math.floor((innerWidth - 16) / (document.querySelector('#ruler').getBoundingClientRect().width / 10))")
    # The shell looks until it sees the size: the window's change arrives when it arrives.
    enter(f"until stty size | grep ' {wide}$'; do sleep 0.1; done; echo it has 'the 'size")
    browser.until("the size follows the window", has("it has the size"), True)
    enter("sh -c 'echo work\"\"ing; exec sleep 300'")
    browser.until("a long command runs", has("working"), True)
    browser.key("c", "", modifiers=2)
    enter("echo status $?")
    browser.until("Ctrl-C ends it, and not the shell", has("status 130"), True)
    enter("printf 'x\\033[31my\\033[0mz\\n'; echo mine > f")
    browser.until("colours are left out", has("xyz"), True)
    first = browser.page
    browser.another(address)
    browser.until("another page has a shell", f"{LINES}.at(-1)", "$")
    enter("ls f; echo looked: $?")
    browser.until("and a sandbox of its own", has("looked: 2"), True)
    browser.page = first
    enter("exit")
    browser.until("the end of the shell is told", SAID, "The shell has ended.")
finally:
    if browser:
        browser.end()
    server.terminate()
    code = server.wait()
    shutil.rmtree(profile, ignore_errors=True)
if code != 0:
    raise SystemExit(f"the program ended with {code}")
print("ok: the program ends")
