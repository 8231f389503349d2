"""Chromium without a window, driven over its own pipe, for the examples' pages.

Needs a `chromium` and nothing but Python's own library."""
import json
import os
import subprocess
import time

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
        self.page = None
        self.another("about:blank")

    def another(self, address):
        """Opens one more page and goes on there; `page` goes back to another one."""
        self.page = None
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.page = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.ask("Page.enable")
        self.open(address)

    def open(self, address):
        self.ask("Page.navigate", url=address)

    def key(self, name, text, modifiers=0):
        """Presses a key; `text` is what it writes, modifier 2 is Ctrl."""
        self.ask("Input.dispatchKeyEvent", type="keyDown", key=name, text=text, modifiers=modifiers)
        self.ask("Input.dispatchKeyEvent", type="keyUp", key=name, modifiers=modifiers)

    def type(self, text):
        for char in text:
            self.key(char, char)

    def ask(self, method, **params):
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.page:
            message["sessionId"] = self.page
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
