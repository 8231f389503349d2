"""Passes requests on to a server and loses the first answer to each named call.

usage: losing_proxy.py HOST:PORT; prints its own address.
"""

import http.client
import http.server
import sys


class Proxy(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    lost = set()

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        server = http.client.HTTPConnection(sys.argv[1])
        server.request("POST", self.path, body, dict(self.headers))
        answer = server.getresponse()
        content = answer.read()
        name = self.headers["sandbox-request-id"]
        if name not in self.lost:
            self.lost.add(name)
            self.close_connection = True
            return
        self.send_response(answer.status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
print(f"http://127.0.0.1:{server.server_port}", flush=True)
server.serve_forever()
