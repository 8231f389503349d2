"""Opens the operator's page in headless Chromium, watches it follow the sessions, and keeps a picture.

usage: page.py PROGRAM [PICTURE.png]

Needs a `chromium` and nothing but Python's own library: the browser is driven over its own pipe."""
import base64
import http.client
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.parse

PATIENCE = 120


class Browser:
    """Chromium with one page, by the DevTools protocol: messages that end with a null byte."""

    def __init__(self, profile):
        from_us, to_browser = os.pipe()
        from_browser, to_us = os.pipe()

        def places():
            # The browser reads from 3 and writes to 4.
            read, write = os.dup(from_us), os.dup(to_us)
            os.dup2(read, 3)
            os.dup2(write, 4)

        self.process = subprocess.Popen(
            ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
             "--no-first-run", "--hide-scrollbars", "--window-size=900,420", f"--user-data-dir={profile}",
             "--remote-debugging-pipe", "about:blank"],
            preexec_fn=places, close_fds=False, stderr=subprocess.DEVNULL)
        os.close(from_us)
        os.close(to_us)
        self.send, self.receive, self.number = os.fdopen(to_browser, "wb"), os.fdopen(from_browser, "rb"), 0
        self.session = None
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

    def ask(self, method, **params):
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        self.send.write(json.dumps(message).encode() + b"\0")
        self.send.flush()
        while True:
            text = bytearray()
            while (byte := self.receive.read(1)) != b"\0":
                if not byte:
                    raise SystemExit("the browser has gone")
                text += byte
            answer = json.loads(text)
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise SystemExit(f"{method}: {answer['error']}")
                return answer["result"]

    def value(self, expression):
        return self.ask("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def until(self, what, expression, wanted):
        end = time.monotonic() + PATIENCE
        while (seen := self.value(expression)) != wanted:
            if time.monotonic() > end:
                raise SystemExit(f"never: {what}; {seen!r} instead of {wanted!r}")
            time.sleep(0.05)
        print("ok:", what)

    def end(self):
        self.process.terminate()
        self.process.wait()


def ask(host, method, path, token, body=None):
    connection = http.client.HTTPConnection(host, timeout=PATIENCE)
    headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
    connection.request(method, path, json.dumps(body) if body else None, headers)
    answer = connection.getresponse()
    text = answer.read()
    assert answer.status < 300, (method, path, answer.status, text)
    return json.loads(text) if text and answer.headers["content-type"] == "application/json" else None


# What the table says: application, status.
ROWS = """JSON.stringify([...document.querySelectorAll("tbody tr")]
    .map((row) => [row.cells[0].textContent, row.cells[1].textContent]).sort())"""

server = subprocess.Popen([sys.argv[1]], stdout=subprocess.PIPE, text=True)
profile = tempfile.mkdtemp(prefix="sandbox-page-")
browser = None
try:
    address, operator = server.stdout.readline().split(" operator ")
    operator = operator.strip()
    host = urllib.parse.urlsplit(address).netloc
    tokens = {app: ask(host, "POST", "/apps", operator, {"app": app})["token"]
              for app in ("shop", "wiki", "blog")}
    browser = Browser(profile)
    browser.ask("Page.enable")
    browser.ask("Page.navigate", url=address)
    browser.until("the page is there", "document.title + !!document.querySelector('form')", "Sandboxestrue")
    assert browser.value(ROWS) == "[]", "sessions are shown without a token"
    browser.value("document.querySelector('input').value = 'wrong'; document.forms[0].requestSubmit()")
    browser.until("a wrong token shows nothing but an error",
                  "!!document.querySelector('#said').textContent && " + ROWS, "[]")
    run = {"script": "echo building; exec sleep 300"}
    # Its answer is a stream that goes on as long as the command: this only begins it.
    building = http.client.HTTPConnection(host, timeout=PATIENCE)
    building.request("POST", "/apps/shop/run", json.dumps(run),
                     {"authorization": f"Bearer {tokens['shop']}", "content-type": "application/json"})
    browser.value(f"document.querySelector('input').value = '{operator}'; document.forms[0].requestSubmit()")
    browser.until("sessions are shown", ROWS,
                  '[["blog","ready"],["shop","working"],["wiki","ready"]]')
    browser.value("[...document.querySelectorAll('tbody tr')]"
                  ".find((row) => row.cells[0].textContent === 'blog').querySelector('button').click()")
    browser.until("a killed one is shown as it goes", ROWS,
                  '[["blog","gone"],["shop","working"],["wiki","ready"]]')
    picture = base64.b64decode(browser.ask("Page.captureScreenshot", format="png")["data"])
    assert picture.startswith(b"\x89PNG") and len(picture) > 5_000, len(picture)
    if len(sys.argv) > 2:
        with open(sys.argv[2], "wb") as file:
            file.write(picture)
        print("ok: kept in", sys.argv[2])
finally:
    if browser:
        browser.end()
    server.terminate()
    server.wait()
    shutil.rmtree(profile, ignore_errors=True)
