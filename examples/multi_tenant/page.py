"""Opens the operator's page in headless Chromium, watches it follow the sessions, and keeps a picture.

usage: page.py PROGRAM [PICTURE.png]

Needs a `chromium` and nothing but Python's own library."""
import base64
import http.client
import json
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.parse

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from browser import PATIENCE, Browser  # noqa: E402


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
    browser.open(address)
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
