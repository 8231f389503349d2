"""Passes requests on to `sandbox mcp` with its token, for clients that can send none.

usage: authorized.py LOG TOKEN
LOG is the server's standard error, which says where it listens. Prints the port of its own."""
import http.client
import http.server
import re
import sys
import time


def server():
    while True:
        with open(sys.argv[1]) as log:
            if found := re.search(r"http://([0-9.:]+)/mcp", log.read()):
                return found[1]
        time.sleep(0.05)


class Pass(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def on(self):
        length = int(self.headers.get("content-length") or 0)
        body = self.rfile.read(length) if length else None
        headers = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
        headers["Authorization"] = f"Bearer {sys.argv[2]}"
        connection = http.client.HTTPConnection(server(), timeout=120)
        connection.request(self.command, self.path, body, headers)
        answer = connection.getresponse()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                self.send_header(name, value)
        self.send_header("Connection", "close")
        self.end_headers()
        try:
            # A stream of events is passed on as it comes.
            while piece := answer.read1(65536):
                self.wfile.write(piece)
                self.wfile.flush()
        except ConnectionError:
            pass
        connection.close()
        self.close_connection = True

    do_GET = do_POST = do_DELETE = on

    def log_message(self, *_):
        pass


listening = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pass)
print(listening.server_address[1], flush=True)
listening.serve_forever()
